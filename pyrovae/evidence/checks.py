"""Checks of the data, and of what programs do while they run."""

from typing import Any

import torch
from pyro.distributions import MaskedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader, Dataset

from pyrovae.data.arguments import as_arguments
from pyrovae.data.rows import Rows
from pyrovae.evidence.streamed import streamed
from pyrovae.programs import Program, check_taken, find_device, floating_parameter

__all__ = ["CountObserved", "RefuseTraining", "check_arguments"]


def check_arguments(
    model: Program, guide: Program, data: Any, device: Any = None
) -> tuple[tuple[Any, ...], torch.device]:
    """The data as tensors or rows, in the parameters' dtype, and where the programs run.

    Raises:
        TypeError: If the data are not arrays.
        ValueError: If they are empty, of unequal lengths or not finite, or if the parameters are
            elsewhere.
    """
    like = floating_parameter(model, guide)
    dtype = None if like is None else like.dtype
    args: tuple[Tensor | Rows, ...]
    if isinstance(data, Dataset | DataLoader):
        args = streamed(data, (model, guide), dtype)
    else:
        args = as_arguments(data, dtype=dtype)
    for program in (model, guide):
        check_taken(program, *args)
    if device is None:
        device = like.device if like is not None else args[0].device
    device = find_device(device)
    if like is not None and like.device.type != device.type:
        raise ValueError(
            f"The programs' parameters are on {like.device}, the device asked for is {device}. "
            "Move them first: vae.to(device)."
        )
    return args, device


class CountObserved(Messenger):
    """Counts the observed elements that no mask hides, over several pieces of data."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self._sites: dict[str, int] = {}

    def _pyro_post_sample(self, msg: Any) -> None:
        if not msg["is_observed"] or site_is_subsample(msg):
            return
        fn = msg["fn"]
        seen = torch.ones(fn.shape(), dtype=torch.bool)
        masks = [(msg["mask"], len(fn.event_shape))]
        inner = fn
        while hasattr(inner, "base_dist"):
            if isinstance(inner, MaskedDistribution):
                reinterpreted = len(fn.batch_shape) + len(fn.event_shape) - len(inner.batch_shape)
                masks.append((inner._mask, reinterpreted))
            inner = inner.base_dist
        for mask, event_dim in masks:
            if mask is not None:
                mask = torch.as_tensor(mask).cpu()
                seen = seen & mask[(...,) + (None,) * event_dim]
        self._sites[msg["name"]] = int(seen.sum())

    def finish_piece(self) -> None:
        """Add the counts of the last run."""
        self.total += sum(self._sites.values())
        self._sites.clear()


class RefuseTraining(TorchFunctionMode):
    """Refuses dropout and batch statistics of modules that eval mode did not reach."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in _TRAINABLE and (kwargs or {}).get("training"):
            raise ValueError(
                f"The programs call {name} in training mode, which makes log p(x) depend on chance "
                "or on the other data. Call .eval() on the module, or let the programs call it as "
                "a module, which pyrovae then finds."
            )
        return func(*args, **(kwargs or {}))


_TRAINABLE = {
    "alpha_dropout",
    "batch_norm",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_alpha_dropout",
}
"""Functions of :mod:`torch.nn.functional` with an argument ``training``."""
