"""Adam's update as tensor operations: the last part of a training step that is captured whole."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyrovae.compilation.fused import is_decoupled, is_plain, is_untouched

__all__ = ["Held", "Update"]

_FIXED = ("betas", "eps", "weight_decay", "amsgrad", "maximize")


class Held:
    """Parameters with the groups and the state that plain ``Adam`` or ``AdamW`` objects keep for them.

    Args:
        optimizers: One, or Pyro's one for each parameter; see :meth:`fits`. State that is missing is begun, as a
            first step would.
        parameters: Those that get a gradient.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer], parameters: Sequence[Tensor]):
        self.optimizers, self.parameters = list(optimizers), list(parameters)
        self._take()

    def _take(self) -> None:
        owners = _owners(self.optimizers)
        self.groups = [owners[id(p)][1] for p in self.parameters]
        self.distinct = list({id(group): group for group in self.groups}.values())
        self.states = [owners[id(p)][0].state[p] for p in self.parameters]
        for parameter, group, state in zip(self.parameters, self.groups, self.states, strict=True):
            if not state:
                state.update(_beginning(parameter, group))
        # Keeps the memory of the state, even if someone gives the tensors another.
        self.storages = [t.untyped_storage() for state in self.states for t in state.values()]
        self.places = self._places()
        self._mine, self._seen = self._of_mine(), self._everything()

    def _places(self) -> list[int]:
        return [p.data_ptr() for p in self.parameters]

    def _of_mine(self) -> list[Any]:
        """What must stay the very same objects: group and state of each parameter."""
        owners, found = _owners(self.optimizers), []
        for parameter in self.parameters:
            owner, group = owners.get(id(parameter), (None, None))
            state = owner.state.get(parameter, {}) if owner is not None else {}
            found += [group, state, *state.values()]
        return found

    def _everything(self) -> list[Any]:
        """The same for whatever parameters the optimisers have: quicker to list, and seldom more."""
        found: list[Any] = []
        for optimizer in self.optimizers:
            found.extend(optimizer.param_groups)
            for state in optimizer.state.values():
                found.append(state)
                found.extend(state.values())
        return found

    @staticmethod
    def fits(optimizers: Sequence[torch.optim.Optimizer], parameters: Sequence[Tensor]) -> bool:
        """Whether the optimisers' steps are nothing but Adam's on these parameters."""
        owners = _owners(optimizers)
        return (
            len(parameters) > 0
            and _are_plain(optimizers, [group for o in optimizers for group in o.param_groups])
            and len({(p.dtype, p.device) for p in parameters}) == 1
            and all(id(p) in owners and p.is_floating_point() for p in parameters)
            and all(
                s["step"].device == p.device
                for p in parameters
                if (s := owners[id(p)][0].state.get(p))
            )
        )

    def moved(self) -> bool:
        """Whether state or memory is no longer what was taken, or the optimisers are no longer plain."""
        now = self._everything()
        if not _are_same(now, self._seen):
            if not _are_same(self._of_mine(), self._mine):
                return True
            self._seen = now
        return self.places != self._places() or not _are_plain(self.optimizers, self.distinct)

    def announce(self) -> None:
        """Let torch's schedulers know of the step; they warn where none was taken."""
        for optimizer in self.optimizers:
            optimizer._opt_called = True  # type: ignore[attr-defined]


class Update(Held):
    r"""One step of Adam, to be traced after the gradients.

    .. math:: m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \quad
              \theta \leftarrow \theta - \frac{\eta}{1 - \beta_1^t} \frac{m}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    The state is the optimisers' own, so that checkpoints, and steps taken otherwise in between, go on as usual.
    Learning rates are read at each step from the optimisers' groups; other settings are frozen into the graph.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer], parameters: Sequence[Tensor]):
        super().__init__(optimizers, parameters)
        self.fixed = [tuple(group[key] for key in _FIXED) for group in self.distinct]
        like = self.parameters[0]
        self.rates = torch.zeros(len(self.parameters), dtype=torch.float64, device=like.device)
        logs = [
            [math.log(beta) if beta else -math.inf for beta in group["betas"]]
            for group in self.groups
        ]
        self.logs = self.rates.new_tensor(logs)
        self._rates: list[float] = []
        self.ready()

    def ready(self) -> bool:
        """Take over the groups' learning rates; False where the graph no longer does what the optimisers would."""
        if self.moved() or self.fixed != [
            tuple(group[key] for key in _FIXED) for group in self.distinct
        ]:
            return False
        rates = [group["lr"] for group in self.groups]
        if rates != self._rates:
            self.rates.copy_(torch.tensor(rates, dtype=torch.float64))
            self._rates = rates
        self.announce()
        return True

    def finish(self, outputs: Sequence[Tensor]) -> None:
        """Nothing: the graph has done it."""

    def apply(self, gradients: Sequence[Tensor]) -> None:
        """Change parameters and state in place."""
        decoupled = is_decoupled(self.optimizers[0])
        with torch.no_grad():
            for state in self.states:
                state["step"].add_(1)
            # The corrections of all parameters at once, in double precision as torch's kernels have them.
            counts = torch.stack([state["step"] for state in self.states]).double()
            corrections = 1 - torch.exp(self.logs * counts.unsqueeze(1))
            kind = self.parameters[0].dtype
            # Stacked, a compiler computes them once; else once for every element of every parameter.
            factors = torch.stack([self.rates / corrections[:, 0], corrections[:, 1].rsqrt()]).to(
                kind
            )
            for i, (parameter, gradient, state, group) in enumerate(
                zip(self.parameters, gradients, self.states, self.groups, strict=True)
            ):
                beta1, beta2 = group["betas"]
                if group["maximize"]:
                    gradient = -gradient
                if group["weight_decay"] and decoupled:
                    parameter.mul_(1 - (self.rates[i] * group["weight_decay"]).to(kind))
                elif group["weight_decay"]:
                    gradient = gradient + group["weight_decay"] * parameter
                mean, square = state["exp_avg"], state["exp_avg_sq"]
                mean.lerp_(gradient, 1 - beta1)
                square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
                if group["amsgrad"]:
                    square = torch.maximum(state["max_exp_avg_sq"], square)
                    state["max_exp_avg_sq"].copy_(square)
                size, root = factors[:, i]
                parameter.sub_(size * mean / (square.sqrt() * root + group["eps"]))


def _are_same(left: list[Any], right: list[Any]) -> bool:
    return len(left) == len(right) and all(map(operator.is_, left, right))


def _owners(
    optimizers: Sequence[torch.optim.Optimizer],
) -> dict[int, tuple[torch.optim.Optimizer, Any]]:
    """Optimiser and group of each parameter, by its identity."""
    return {
        id(p): (o, group) for o in optimizers for group in o.param_groups for p in group["params"]
    }


def _are_plain(
    optimizers: Sequence[torch.optim.Optimizer], groups: Sequence[dict[str, Any]]
) -> bool:
    return (
        all(is_untouched(optimizer) for optimizer in optimizers)
        and all(is_plain(group) for group in groups)
        and len({is_decoupled(optimizer) for optimizer in optimizers}) == 1
    )


def _beginning(parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
    """The state that torch gives a parameter before its first step."""
    names = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else [])]
    zeros = {
        name: torch.zeros_like(parameter, memory_format=torch.preserve_format) for name in names
    }
    return {"step": torch.zeros((), dtype=torch.float32, device=parameter.device)} | zeros
