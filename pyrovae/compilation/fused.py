"""Adam's update by torch's fused kernel, without the Python around it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

__all__ = ["FusedAdam", "is_decoupled", "is_plain", "is_untouched", "prefer_fused"]

_EXACT = (torch.optim.Adam, torch.optim.AdamW)
_HYPERPARAMETERS = ("lr", "betas", "eps", "weight_decay", "amsgrad", "maximize")


def prefer_fused(optimizer: torch.optim.Optimizer) -> None:
    """Ask for the fused kernel where the caller asked for no other; the update is the same to rounding."""
    if type(optimizer) not in (*_EXACT, torch.optim.SGD):
        return
    for group in optimizer.param_groups:
        undecided = group.get("fused") is None and not group.get("foreach")
        plain = not (group.get("differentiable") or group.get("capturable"))
        floating = all(
            p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in group["params"]
        )
        if undecided and plain and floating and not isinstance(group["lr"], Tensor):
            group["fused"], group["foreach"] = True, False


class FusedAdam:
    """Steps of :class:`torch.optim.Adam` or ``AdamW`` objects whose first step has been taken, as one call.

    The state stays the optimisers' own, so checkpoints, schedulers and groups go on as usual. About half of
    the time of a small model's ``optimizer.step()`` is bookkeeping in Python; this leaves it out.

    Args:
        optimizers: One, or Pyro's one for each parameter; see :meth:`fits`.
        parameters: Those that get a gradient, in the order of :meth:`step`'s argument.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer], parameters: Sequence[Tensor]):
        self.optimizers, self.parameters = optimizers, parameters
        self.states = [optimizer.state for optimizer in optimizers]
        self.storages = [p.data_ptr() for p in parameters]
        place = {id(p): i for i, p in enumerate(parameters)}
        self.groups: list[dict[str, Any]] = []
        self._members: list[list[tuple[int, Tensor, dict[str, Tensor]]]] = []
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                self.groups.append(group)
                self._members.append(
                    [
                        (place[id(p)], p, optimizer.state[p])
                        for p in group["params"]
                        if id(p) in place
                    ]
                )
        self._kernel = _kernel(optimizers[0])
        self._calls: list[tuple[Any, ...]] = []
        self._known: list[tuple[Any, ...]] | None = None

    @staticmethod
    def fits(optimizers: Sequence[torch.optim.Optimizer], parameters: Sequence[Tensor]) -> bool:
        """Whether this class can take the optimisers' steps."""
        states = {id(p): s for optimizer in optimizers for p, s in optimizer.state.items()}
        return (
            all(is_untouched(optimizer) for optimizer in optimizers)
            and all(is_plain(group) for optimizer in optimizers for group in optimizer.param_groups)
            and len({_kernel(optimizer) for optimizer in optimizers}) == 1
            and len({(p.dtype, p.device) for p in parameters}) == 1
            and all("exp_avg" in states.get(id(p), ()) for p in parameters)
            and all(states[id(p)]["step"].device == p.device for p in parameters)
        )

    def stale(self) -> bool:
        """Whether an optimiser's state or the parameters' memory has been replaced, as by loading."""
        return (
            any(state is not o.state for state, o in zip(self.states, self.optimizers, strict=True))
            or self.storages != [p.data_ptr() for p in self.parameters]
            or not all(is_plain(group) for group in self.groups)
        )

    def step(self, gradients: Sequence[Tensor]) -> None:
        """One update."""
        known = [tuple(group[key] for key in _HYPERPARAMETERS) for group in self.groups]
        if known != self._known:
            self._arrange(known)
        for places, members, averages, squares, largest, counts, options in self._calls:
            torch._foreach_add_(counts, 1)  # type: ignore[attr-defined]
            self._kernel(
                members,
                [gradients[i] for i in places],
                averages,
                squares,
                largest,
                counts,
                **options,
            )

    def _arrange(self, known: list[tuple[Any, ...]]) -> None:
        """Groups of the same hyperparameters share a call."""
        together: dict[tuple[Any, ...], list[tuple[int, Tensor, dict[str, Tensor]]]] = {}
        for values, members in zip(known, self._members, strict=True):
            together.setdefault(values, []).extend(members)
        self._calls = []
        for values, members in together.items():
            options: dict[str, Any] = dict(zip(_HYPERPARAMETERS, values, strict=True))
            options["beta1"], options["beta2"] = options.pop("betas")
            states = [state for _, _, state in members]
            self._calls.append(
                (
                    [place for place, _, _ in members],
                    [p.detach() for _, p, _ in members],
                    [s["exp_avg"] for s in states],
                    [s["exp_avg_sq"] for s in states],
                    [s["max_exp_avg_sq"] for s in states if "max_exp_avg_sq" in s],
                    [s["step"] for s in states],
                    options,
                )
            )
        self._known = known


def is_untouched(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its steps are plain Adam's or AdamW's, with nothing hooked on."""
    hooks = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    everywhere = _global_optimizer_pre_hooks or _global_optimizer_post_hooks
    return type(optimizer) in _EXACT and not (hooks or everywhere)


def is_plain(group: dict[str, Any]) -> bool:
    """Whether nothing in a group asks for another kernel."""
    odd = group.get("differentiable") or group.get("foreach") or group.get("capturable")
    return not odd and group.get("fused") is not False and not isinstance(group["lr"], Tensor)


def is_decoupled(optimizer: torch.optim.Optimizer) -> bool:
    """Whether weight decay acts on the parameters themselves, as in AdamW."""
    decoupled = optimizer.param_groups[0].get("decoupled_weight_decay")
    return type(optimizer) is torch.optim.AdamW or bool(decoupled)


def _kernel(optimizer: torch.optim.Optimizer) -> Any:
    return torch._fused_adamw_ if is_decoupled(optimizer) else torch._fused_adam_  # type: ignore[attr-defined]
