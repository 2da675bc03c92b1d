"""Elements of several distributions, side by side."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import constraints

from pyrovae.distributions.base import Broadcasting

__all__ = ["ColumnSupport", "Columnwise", "Piece"]


class Piece(NamedTuple):
    """Some neighbouring columns of a table, and their distribution.

    The columns hold ``loc + scale * y`` where y has the distribution.
    """

    distribution: Any
    """Elementwise, batch shape ``(*batch, num_columns)``."""
    num_columns: int
    loc: float = 0.0
    scale: float = 1.0


class ColumnSupport(constraints.Constraint):
    """A support for each column.

    Args:
        pieces: Support, number of columns, location and scale of neighbouring columns.
    """

    def __init__(self, pieces: Sequence[tuple[Any, int, float, float]]):
        self.pieces = pieces
        kinds = {support.is_discrete for support, *_ in pieces}
        self.is_discrete, self.is_mixed = kinds == {True}, len(kinds) > 1

    def check(self, value: Tensor) -> Tensor:
        blocks = value.split([size for _, size, *_ in self.pieces], -1)
        return torch.cat(
            [
                support.check((block - loc) / scale)
                for block, (support, _, loc, scale) in zip(blocks, self.pieces, strict=True)
            ],
            -1,
        )


class Columnwise(Broadcasting):
    r"""Independent elements, the columns of a row, with another distribution for each piece.

    .. math:: \log p(x_j) = \log p_j\Big(\frac{x_j - m_j}{s_j}\Big) - \log s_j

    The last dimension of the batch shape counts the columns. A mask over elements therefore hides
    cells of a table.

    Args:
        pieces: The distributions, whose batch shapes agree but for the last dimension.
    """

    def __init__(self, pieces: Sequence[Piece]):
        self.pieces = pieces
        batch = torch.broadcast_shapes(*(p.distribution.batch_shape[:-1] for p in pieces))
        shape = torch.Size((*batch, sum(p.num_columns for p in pieces)))
        super().__init__(shape, validate_args=False)

    @property
    def support(self) -> ColumnSupport:
        return ColumnSupport(
            [(p.distribution.support, p.num_columns, p.loc, p.scale) for p in self.pieces]
        )

    def log_prob(self, value: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(value.shape, self._batch_shape)
        blocks = value.split([p.num_columns for p in self.pieces], -1)
        found = []
        for block, (distribution, num_columns, loc, scale) in zip(blocks, self.pieces, strict=True):
            own = distribution.log_prob((block - loc) / scale)
            if scale != 1:
                own = own - math.log(scale)
            found.append(own.expand(*shape[:-1], num_columns))
        return torch.cat(found, -1)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008  # torch's own signature
        batch = self._batch_shape[:-1]
        with torch.no_grad():
            return torch.cat(
                [
                    p.distribution.expand((*batch, p.num_columns)).sample(sample_shape) * p.scale
                    + p.loc
                    for p in self.pieces
                ],
                -1,
            )
