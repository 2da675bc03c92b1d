"""Labels that are known for some data only."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor, nn

from pyrovae.models.forms import as_tensor

__all__ = ["UNKNOWN", "as_labels", "given_label", "observe_label"]

UNKNOWN = -1
"""In place of a label that is not known."""

_IMPOSSIBLE = 1e4  # its negative is a logarithm whose exponential is zero in any precision


def as_labels(y: Any, num_labels: int, like: Tensor, num_data: int) -> Tensor:
    """``(B,)`` whole labels, on the device of ``like``.

    Raises:
        TypeError: If they are no whole numbers.
        ValueError: If they are not as many as the data, or lie outside ``-1 ... num_labels - 1``.
    """
    y = as_tensor(y, like, "The labels")
    if y.is_floating_point():
        raise TypeError(f"Labels must be integers, {UNKNOWN} where unknown, found {y.dtype}.")
    if y.shape != (num_data,):
        raise ValueError(f"{num_data} data need labels of shape ({num_data},), found {y.shape}.")
    y = y.long()
    if is_validation_enabled() and ((y < UNKNOWN) | (y >= num_labels)).any():
        raise ValueError(
            f"Labels must lie in 0 ... {num_labels - 1}, or be {UNKNOWN} where unknown, found "
            f"{int(y.min())} to {int(y.max())}."
        )
    return y


def observe_label(value: Tensor, y: Tensor, num_labels: int, like: Tensor) -> None:
    """Observe, where it is known, that the label is the value of a site."""
    value, known = torch.broadcast_tensors(value, y != UNKNOWN)  # enumerated values lack the data
    logits = _IMPOSSIBLE * nn.functional.one_hot(value, num_labels).to(like)
    pyro.sample("label", dist.Categorical(logits=logits).mask(known), obs=y.clamp(min=0))


def given_label(logits: Tensor, y: Tensor) -> dist.Categorical:
    """A categorical distribution by logits ``(*batch, B, C)``, and sure where y is known."""
    sure = _IMPOSSIBLE * nn.functional.one_hot(y.clamp(min=0), logits.shape[-1]).to(logits)
    return dist.Categorical(logits=torch.where((y != UNKNOWN).unsqueeze(-1), sure, logits))
