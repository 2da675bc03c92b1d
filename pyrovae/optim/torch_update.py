"""The update of any optimiser, taken by the optimiser itself."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.optim import PyroOptim
from torch import Tensor

from pyrovae.optim.adam import AdamUpdate

__all__ = ["OptimizerUpdate", "check_optimizer", "prefer_fused", "torch_optimizers", "update_for"]

_FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)


class OptimizerUpdate:
    """Hand the gradients to an optimiser and let it step.

    Args:
        step: Takes the step from the parameters' ``grad``.
        parameters: What the gradients belong to.
    """

    in_graph = False
    """Whether :meth:`apply` may be captured as part of a step."""

    def __init__(self, step: Callable[[], Any], parameters: Sequence[Tensor]):
        self.step, self.parameters = step, list(parameters)

    def ready(self) -> bool:
        """Whether the update still does what its optimiser would: always."""
        return True

    def refresh(self) -> None:
        """Take over learning rates: nothing to do."""

    def apply(self, gradients: Sequence[Tensor | None]) -> None:
        """One step."""
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.step()


def check_optimizer(optimizer: torch.optim.Optimizer | PyroOptim) -> None:
    """Raise for an optimiser that asks for a closure, which evaluates the loss several times.

    Raises:
        TypeError: If the optimiser's ``step`` has an argument without a default.
    """
    pyros = isinstance(optimizer, PyroOptim)
    kind: Any = optimizer.pt_optim_constructor if pyros else type(optimizer)
    step = getattr(kind, "step", None)
    if step is None:  # a function that makes the optimiser
        return
    _, *arguments = inspect.signature(step).parameters.values()
    if any(a.default is a.empty and a.kind is a.POSITIONAL_OR_KEYWORD for a in arguments):
        raise TypeError(
            f"{kind.__name__} evaluates the loss several times within a step, each time by new "
            "draws, which stochastic training does not offer. Use Adam or SGD."
        )


def update_for(
    optimizer: torch.optim.Optimizer | PyroOptim,
    parameters: Sequence[Tensor],
    *,
    in_graph: bool = True,
) -> AdamUpdate | OptimizerUpdate:
    """The update of an optimiser: Adam's as tensor operations where it fits, else the optimiser's
    own.

    Args:
        optimizer: Of torch or of Pyro.
        parameters: What the gradients will belong to.
        in_graph: False asks for the optimiser's own.
    """
    optimizers = torch_optimizers(optimizer, parameters)
    if in_graph and AdamUpdate.fits(optimizers, parameters):
        return AdamUpdate(optimizers, parameters)
    if not isinstance(optimizer, PyroOptim):
        return OptimizerUpdate(optimizer.step, parameters)

    def step() -> None:
        met = [p for p in parameters if p.grad is not None]
        optimizer(met)
        for parameter in met:
            parameter.grad = None

    return OptimizerUpdate(step, parameters)


def torch_optimizers(
    optimizer: torch.optim.Optimizer | PyroOptim, parameters: Sequence[Tensor]
) -> list[torch.optim.Optimizer]:
    """The torch optimisers at work; none where Pyro's are not Adam's or clip gradients one by
    one.
    """
    if not isinstance(optimizer, PyroOptim):
        return [optimizer]
    if optimizer.pt_optim_constructor not in (torch.optim.Adam, torch.optim.AdamW):
        return []  # the call below may not be free of effects: ClippedAdam's lowers its rate
    if any(p not in optimizer.optim_objs for p in parameters):
        kept = [p.grad for p in parameters]
        for parameter in parameters:
            parameter.grad = None
        optimizer(list(parameters))  # without gradients: makes the optimisers and takes no step
        for parameter, gradient in zip(parameters, kept, strict=True):
            parameter.grad = gradient
    if any(optimizer.grad_clip.get(p) is not None for p in parameters):
        return []
    held = [optimizer.optim_objs[p] for p in parameters]
    # A Pyro scheduler wraps the optimiser.
    return [getattr(each, "optimizer", each) for each in held]


def prefer_fused(optimizer: torch.optim.Optimizer) -> None:
    """Ask for torch's fused kernel where the caller asked for no other; it is
    the same to rounding.
    """
    if type(optimizer) not in _FUSED:
        return
    for group in optimizer.param_groups:
        undecided = group.get("fused") is None and not group.get("foreach")
        plain = not (group.get("differentiable") or group.get("capturable"))
        floating = all(
            p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in group["params"]
        )
        if undecided and plain and floating and not isinstance(group["lr"], Tensor):
            group["fused"], group["foreach"] = True, False
