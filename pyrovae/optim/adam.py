"""Adam's update as one operator, which a captured step holds after its gradients."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

__all__ = ["AdamUpdate", "decompositions"]

_SETTINGS = ("betas", "eps", "weight_decay", "amsgrad", "maximize")
_SCHEMA = (
    "adam_(Tensor(a!)[] parameters, Tensor[] gradients, Tensor(b!)[] means, Tensor(c!)[] squares, "
    "Tensor(d!)[] largest, Tensor(e!)[] steps, Tensor rate, float beta1, float beta2, float decay, "
    "float epsilon, bool maximize, bool decoupled) -> ()"
)


class AdamUpdate:
    r"""One step of torch's ``Adam`` or ``AdamW``, on their own state.

    .. math:: m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad
              v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \quad
              \theta \leftarrow \theta - \frac{\eta}{1 - \beta_1^t}
                  \frac{m}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    The state stays in the optimisers, so that checkpoints, and steps that an optimiser takes
    itself, go on as usual. Learning rates are read at each step; other settings are frozen into a
    captured graph, and :meth:`ready` tells when they have changed.

    Args:
        optimizers: One, or Pyro's one for each parameter, that :meth:`fits`. Missing state is
            begun.
        parameters: What the gradients belong to.

    References:
        Adam: A Method for Stochastic Optimization (Kingma and Ba, 2015), algorithm 1,
        `arXiv:1412.6980 <https://arxiv.org/abs/1412.6980>`_.
    """

    in_graph = True

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer], parameters: Sequence[Tensor]):
        self.optimizers, self.parameters = list(optimizers), list(parameters)
        owners = _owners(self.optimizers)
        self.groups = [owners[id(p)][1] for p in self.parameters]
        self.states = [owners[id(p)][0].state[p] for p in self.parameters]
        for parameter, group, state in zip(self.parameters, self.groups, self.states, strict=True):
            if not state:
                state.update(_beginning(parameter, group))
        self.decoupled = _is_decoupled(self.optimizers[0])
        self._rates: list[float | None] = []
        self._calls = self._together()
        self._held = [list(state.values()) for state in self.states]  # no id comes twice
        self._signature = self._sign()
        self.refresh()

    @staticmethod
    def fits(optimizers: Sequence[torch.optim.Optimizer], parameters: Sequence[Tensor]) -> bool:
        """Whether the optimisers' steps on these parameters are nothing but Adam's."""
        owners = _owners(optimizers)
        return (
            len(parameters) > 0
            and _are_plain(optimizers)
            and len({(p.dtype, p.device) for p in parameters}) == 1
            and all(id(p) in owners and p.is_floating_point() for p in parameters)
            and all(
                state["step"].device == p.device
                for p in parameters
                if (state := owners[id(p)][0].state.get(p))
            )
        )

    def ready(self) -> bool:
        """Whether a graph of :meth:`apply` still does what the optimisers would; takes over
        learning rates.
        """
        if not _are_plain(self.optimizers) or self._sign() != self._signature:
            return False
        lr = [group["lr"] for group in self.groups]
        if any(lr[i] != lr[places[0]] for places, _ in self._calls for i in places):
            return False  # parameters that shared a learning rate no longer do
        self.refresh()
        for optimizer in self.optimizers:
            optimizer._opt_called = True  # type: ignore[attr-defined]  # schedulers warn without a step
        return True

    def refresh(self) -> None:
        """Take over the groups' learning rates."""
        rates = [self.groups[places[0]]["lr"] for places, _ in self._calls]
        if rates != self._rates:
            for (_, rate), value in zip(self._calls, rates, strict=True):
                rate.fill_(value)
            self._rates = rates

    def apply(self, gradients: Sequence[Tensor | None]) -> None:
        """Change parameters and state in place; parameters without a gradient rest."""
        operator = _operator()
        with torch.no_grad():
            for places, rate in self._calls:
                used = [i for i in places if gradients[i] is not None]
                if not used:
                    continue
                states, group = [self.states[i] for i in used], self.groups[used[0]]
                operator(
                    [self.parameters[i] for i in used],
                    [gradients[i] for i in used],
                    [state["exp_avg"] for state in states],
                    [state["exp_avg_sq"] for state in states],
                    [state["max_exp_avg_sq"] for state in states if group["amsgrad"]],
                    [state["step"] for state in states],
                    rate,
                    *group["betas"],
                    group["weight_decay"],
                    group["eps"],
                    group["maximize"],
                    self.decoupled,
                )

    def _together(self) -> list[tuple[list[int], Tensor]]:
        """Places of the parameters that share all settings, and a tensor with
        their learning rate.
        """
        alike: dict[tuple, list[int]] = {}
        for i, group in enumerate(self.groups):
            alike.setdefault((group["lr"], *(group[key] for key in _SETTINGS)), []).append(i)
        device = self.parameters[0].device
        # As torch's kernels read it.
        kind = torch.float64 if device.type == "cpu" else torch.float32
        return [(places, torch.zeros((), dtype=kind, device=device)) for places in alike.values()]

    def _sign(self) -> list[Any]:
        """What must stay as it is: settings, and where parameters and state lie."""
        owners, found = _owners(self.optimizers), []
        for parameter, state, group in zip(self.parameters, self.states, self.groups, strict=True):
            owner, current = owners.get(id(parameter), (None, None))
            kept = owner is not None and owner.state.get(parameter) is state and current is group
            found.append((kept, parameter.data_ptr(), *(group[key] for key in _SETTINGS)))
            found.append([(id(t), t.data_ptr()) for t in state.values()])
        return found


@functools.cache
def _operator() -> Any:
    library = torch.library.Library("pyrovae", "FRAGMENT")
    library.define(_SCHEMA)
    library.impl("adam_", _fused, "CPU")
    library.impl("adam_", _fused, "CUDA")
    library.impl("adam_", lambda *_: None, "Meta")
    _libraries.append(library)
    return torch.ops.pyrovae.adam_.default


_libraries: list[Any] = []  # an operator exists as long as its library's object


def decompositions(device: torch.device) -> dict[Any, Any]:
    """For a compiler on CPU: the operator as tensor operations, which it fuses with what comes
    before. On a GPU one kernel of torch's updates all parameters, where a compiler makes one for
    each, so the operator stays.
    """
    return {_operator(): _formula} if device.type == "cpu" else {}


def _fused(
    parameters, gradients, means, squares, largest, steps,
    rate, beta1, beta2, decay, epsilon, maximize, decoupled,
) -> None:  # fmt: skip
    """By torch's fused kernel."""
    kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_  # type: ignore[attr-defined]
    with torch.no_grad():
        torch._foreach_add_(steps, 1)  # type: ignore[attr-defined]
        kernel(
            parameters, gradients, means, squares, largest, steps, lr=rate,
            beta1=beta1, beta2=beta2, weight_decay=decay, eps=epsilon,
            amsgrad=bool(largest), maximize=maximize,
        )  # fmt: skip


def _formula(
    parameters, gradients, means, squares, largest, steps,
    rate, beta1, beta2, decay, epsilon, maximize, decoupled,
) -> None:  # fmt: skip
    """By tensor operations. Moments too small for normal numbers become zero: denormal ones are
    slow.
    """
    kind, tiny = parameters[0].dtype, torch.finfo(parameters[0].dtype).tiny
    logs = [math.log(beta) if beta else -math.inf for beta in (beta1, beta2)]
    for step in steps:
        step.add_(1)
    # All parameters' corrections at once, in double precision as torch's kernels have them: a
    # compiler computes what is stacked once, and else once for every element of every parameter.
    counts = torch.stack(list(steps)).double()
    first, second = (1 - torch.exp(log * counts) for log in logs)
    factors = torch.stack([rate / first, second.rsqrt()]).to(kind)
    shrink = (1 - rate * decay).to(kind)
    for i, (parameter, gradient, mean, square) in enumerate(
        zip(parameters, gradients, means, squares, strict=True)
    ):
        gradient = -gradient if maximize else gradient
        if decay and decoupled:
            parameter.mul_(shrink)
        elif decay:
            gradient = gradient + decay * parameter
        mean.lerp_(gradient, 1 - beta1)
        mean.masked_fill_(mean.abs() < tiny, 0.0)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        square.masked_fill_(square < tiny, 0.0)
        if largest:
            square = torch.maximum(largest[i], square)
            largest[i].copy_(square)
        size, root = factors[:, i]
        parameter.sub_(size * mean / (square.sqrt() * root + epsilon))


def _owners(
    optimizers: Sequence[torch.optim.Optimizer],
) -> dict[int, tuple[torch.optim.Optimizer, Any]]:
    """Optimiser and group of each parameter, by its identity."""
    return {
        id(p): (o, group) for o in optimizers for group in o.param_groups for p in group["params"]
    }


def _are_plain(optimizers: Sequence[torch.optim.Optimizer]) -> bool:
    """Whether the steps are Adam's or AdamW's, one of the two, with nothing
    hooked on or asked for.
    """
    if _global_optimizer_pre_hooks or _global_optimizer_post_hooks:
        return False
    return len({_is_decoupled(optimizer) for optimizer in optimizers}) == 1 and all(
        type(optimizer) in (torch.optim.Adam, torch.optim.AdamW)
        and not (optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)
        and all(map(_is_plain, optimizer.param_groups))
        for optimizer in optimizers
    )


def _is_plain(group: dict[str, Any]) -> bool:
    odd = group.get("differentiable") or group.get("foreach") or group.get("capturable")
    return not odd and group.get("fused") is not False and not isinstance(group["lr"], Tensor)


def _is_decoupled(optimizer: torch.optim.Optimizer) -> bool:
    """Whether weight decay acts on the parameters themselves, as in AdamW."""
    decoupled = optimizer.param_groups[0].get("decoupled_weight_decay")
    return type(optimizer) is torch.optim.AdamW or bool(decoupled)


def _beginning(parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
    """The state that torch gives a parameter before its first step."""
    names = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else [])]
    zeros = {
        name: torch.zeros_like(parameter, memory_format=torch.preserve_format) for name in names
    }
    return {"step": torch.zeros((), dtype=torch.float32, device=parameter.device)} | zeros
