"""What an encoder sees of a table."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from pyrovae.likelihoods.categorical import Categorical
from pyrovae.nets import Recipe
from pyrovae.nets.onehot import one_hot

__all__ = ["Features", "Reading"]


class Features(nn.Module):
    """``(N, F)`` numbers that suit a network, of ``(N, D)`` columns in their own units.

    A real column is less its location and over its scale; a positive one is the logarithm, over its
    scale; a count is log(1 + x); a category is one number for each value; others are as they are. A
    missing cell, NaN, has zeros. Where cells may be missing, D numbers more tell which are there.

    Args:
        columns: The :class:`~pyrovae.likelihoods.Columns`.
    """

    def __init__(self, columns: Any):
        super().__init__()
        self.missing = columns.missing
        self.entries = [(_kind(e.part), len(e.names), e.loc, e.scale) for e in columns.entries]
        numbers = (size * (kind if isinstance(kind, int) else 1) for kind, size, *_ in self.entries)
        self.num_features = sum(numbers) + self.missing * len(columns.names)

    def forward(self, x: Tensor) -> Tensor:
        seen = x == x  # NaN equals nothing, itself included
        blocks = x.split([size for _, size, *_ in self.entries], -1)
        masks = seen.split([size for _, size, *_ in self.entries], -1)
        found = [
            _look(block, mask, *entry)
            for block, mask, entry in zip(blocks, masks, self.entries, strict=True)
        ]
        return torch.cat([*found, seen.to(x)] if self.missing else found, -1)


class Reading(Recipe):
    """A recipe's network, applied to :class:`Features` of a table."""

    def __init__(self, features: Features, net: Recipe):
        self.features, self.net = features, net

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Module:
        net = self.net.build((self.features.num_features,), out_shape)
        return nn.Sequential(self.features, net)


def _kind(part: Any) -> int | str:
    """The number of categories, or how the column is scaled."""
    if isinstance(part, Categorical):
        return part.num_levels
    kinds = {constraints.positive: "log", constraints.nonnegative_integer: "log1p"}
    return kinds.get(part.support, "linear")


def _look(x: Tensor, seen: Tensor, kind: int | str, size: int, loc: float, scale: float) -> Tensor:
    x = torch.where(seen, x, loc)
    if isinstance(kind, int):
        return (one_hot(x, kind) * seen.unsqueeze(-1)).flatten(-2)
    if kind == "log":
        x = (x / scale).clamp(min=torch.finfo(x.dtype).tiny).log()
    elif kind == "log1p":
        x = x.clamp(min=0).log1p()
    else:
        x = (x - loc) / scale
    return torch.where(seen, x, 0.0)
