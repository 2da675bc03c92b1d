"""Adam's update as tensor operations: the last part of a training step that is captured whole."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyrovae.engine.fused import is_decoupled, is_plain, is_untouched

__all__ = ["Update"]

_FIXED = ("betas", "eps", "weight_decay", "amsgrad", "maximize")


class Update:
    r"""One step of :class:`torch.optim.Adam` or ``AdamW`` objects, to be traced after the gradients.

    .. math:: m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \quad
              \theta \leftarrow \theta - \frac{\eta}{1 - \beta_1^t} \frac{m}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    The state is the optimisers' own, so that checkpoints, and steps taken otherwise in between, go on as usual.
    Learning rates are read at each step from the optimisers' groups (:meth:`refresh`); other settings are frozen
    into the graph, and :meth:`stale` tells when they no longer hold.

    Args:
        optimizers: One, or Pyro's one for each parameter; see :meth:`fits`. State that is missing is begun, as a
            first step would.
        parameters: Those that get a gradient.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer], parameters: Sequence[Tensor]):
        self.optimizers, self.parameters = list(optimizers), list(parameters)
        owners = _owners(optimizers)
        self.owners = [owners[id(p)][0] for p in self.parameters]
        self.groups = [owners[id(p)][1] for p in self.parameters]
        self.states = [owner.state[p] for owner, p in zip(self.owners, self.parameters, strict=True)]
        for parameter, group, state in zip(self.parameters, self.groups, self.states, strict=True):
            if not state:
                state.update(_beginning(parameter, group))
        self.tensors = [dict(state) for state in self.states]
        self.distinct = list({id(group): group for group in self.groups}.values())
        self.fixed = [tuple(group[key] for key in _FIXED) for group in self.distinct]
        self.places = [p.data_ptr() for p in self.parameters]
        like = self.parameters[0]
        self.rates = torch.zeros(len(self.parameters), dtype=torch.float64, device=like.device)
        logs = [[math.log(beta) if beta else -math.inf for beta in group["betas"]] for group in self.groups]
        self.logs = self.rates.new_tensor(logs)
        self._rates: list[float] = []
        self.refresh()

    @staticmethod
    def fits(optimizers: Sequence[torch.optim.Optimizer], parameters: Sequence[Tensor]) -> bool:
        """Whether this class can take the optimisers' steps."""
        owners = _owners(optimizers)
        return (
            len(parameters) > 0
            and _are_plain(optimizers, [group for o in optimizers for group in o.param_groups])
            and len({(p.dtype, p.device) for p in parameters}) == 1
            and all(id(p) in owners and p.is_floating_point() for p in parameters)
            and all(s["step"].device == p.device for p in parameters if (s := owners[id(p)][0].state.get(p)))
        )

    def stale(self) -> bool:
        """Whether the optimisers' state, settings or the parameters' memory are no longer those captured."""
        return not (
            all(
                o.state.get(p) is s for o, p, s in zip(self.owners, self.parameters, self.states, strict=True)
            )
            and all(n.get(k) is t[k] for n, t in zip(self.states, self.tensors, strict=True) for k in t)
            and self.fixed == [tuple(group[key] for key in _FIXED) for group in self.distinct]
            and self.places == [p.data_ptr() for p in self.parameters]
            and _are_plain(self.optimizers, self.distinct)
        )

    def refresh(self) -> None:
        """Take over the groups' learning rates."""
        rates = [group["lr"] for group in self.groups]
        if rates != self._rates:
            self.rates.copy_(torch.tensor(rates, dtype=torch.float64))
            self._rates = rates
        for optimizer in self.optimizers:  # torch's schedulers ask for it, and warn where no step was taken
            optimizer._opt_called = True  # type: ignore[attr-defined]

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
            factors = torch.stack([self.rates / corrections[:, 0], corrections[:, 1].rsqrt()]).to(kind)
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


def _owners(optimizers: Sequence[torch.optim.Optimizer]) -> dict[int, tuple[torch.optim.Optimizer, Any]]:
    """Optimiser and group of each parameter, by its identity."""
    return {id(p): (o, group) for o in optimizers for group in o.param_groups for p in group["params"]}


def _are_plain(optimizers: Sequence[torch.optim.Optimizer], groups: Sequence[dict[str, Any]]) -> bool:
    return (
        all(is_untouched(optimizer) for optimizer in optimizers)
        and all(is_plain(group) for group in groups)
        and len({is_decoupled(optimizer) for optimizer in optimizers}) == 1
    )


def _beginning(parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
    """The state that torch gives a parameter before its first step."""
    names = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else [])]
    zeros = {name: torch.zeros_like(parameter, memory_format=torch.preserve_format) for name in names}
    return {"step": torch.zeros((), dtype=torch.float32, device=parameter.device)} | zeros
