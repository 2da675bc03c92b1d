"""Adam's update by torch's fused kernel, without the Python around it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

__all__ = ["FusedAdam", "prefer_fused"]

_EXACT = (torch.optim.Adam, torch.optim.AdamW)


def prefer_fused(optimizer: torch.optim.Optimizer) -> None:
    """Ask for the fused kernel where the caller asked for no other; the update is the same to rounding."""
    if type(optimizer) not in (*_EXACT, torch.optim.SGD):
        return
    for group in optimizer.param_groups:
        undecided = group.get("fused") is None and not group.get("foreach")
        plain = not (group.get("differentiable") or group.get("capturable"))
        floating = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in group["params"])
        if undecided and plain and floating and not isinstance(group["lr"], Tensor):
            group["fused"], group["foreach"] = True, False


class FusedAdam:
    """Steps of a :class:`torch.optim.Adam` or ``AdamW`` whose first step has been taken.

    The state stays the optimiser's own, so checkpoints, schedulers and groups go on as usual. About half of
    the time of a small model's ``optimizer.step()`` is bookkeeping in Python; this leaves it out.

    Args:
        optimizer: Its groups must be fused, without hooks.
        parameters: Those that get a gradient, in the order of :meth:`step`'s argument.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]):
        self.optimizer, self.state = optimizer, optimizer.state
        place = {id(p): i for i, p in enumerate(parameters)}
        self.groups: list[Any] = []
        for group in optimizer.param_groups:
            members = [p for p in group["params"] if id(p) in place]
            states = [optimizer.state[p] for p in members]
            kernel = torch._fused_adamw_ if group.get("decoupled_weight_decay") else torch._fused_adam_  # type: ignore[attr-defined]
            self.groups.append(
                (
                    kernel if type(optimizer) is torch.optim.Adam else torch._fused_adamw_,  # type: ignore[attr-defined]
                    group,
                    [place[id(p)] for p in members],
                    [p.detach() for p in members],
                    [s["exp_avg"] for s in states],
                    [s["exp_avg_sq"] for s in states],
                    [s["max_exp_avg_sq"] for s in states if "max_exp_avg_sq" in s],
                    [s["step"] for s in states],
                )
            )
        self.storages = [p.data_ptr() for p in parameters]
        self.parameters = parameters

    @staticmethod
    def fits(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> bool:
        """Whether this class can take the optimiser's steps."""
        return (
            type(optimizer) in _EXACT
            and not optimizer._optimizer_step_pre_hooks
            and not optimizer._optimizer_step_post_hooks
            and not _global_optimizer_pre_hooks
            and not _global_optimizer_post_hooks
            and all(
                group.get("fused") and not group.get("differentiable") for group in optimizer.param_groups
            )
            and len({(p.dtype, p.device) for p in parameters}) == 1
            and all("exp_avg" in optimizer.state.get(p, ()) for p in parameters)
        )

    def stale(self) -> bool:
        """Whether the optimiser's state or the parameters' memory has been replaced, as by loading."""
        return self.state is not self.optimizer.state or self.storages != [
            p.data_ptr() for p in self.parameters
        ]

    def step(self, gradients: Sequence[Tensor]) -> None:
        """One update."""
        for kernel, group, places, members, averages, squares, largest, counts in self.groups:
            beta1, beta2 = group["betas"]
            torch._foreach_add_(counts, 1)  # type: ignore[attr-defined]
            kernel(
                members,
                [gradients[i] for i in places],
                averages,
                squares,
                largest,
                counts,
                lr=group["lr"],
                beta1=beta1,
                beta2=beta2,
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=group["amsgrad"],
                maximize=group["maximize"],
            )
