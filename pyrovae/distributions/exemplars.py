"""A mixture of equal isotropic normals around very many means."""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

from pyrovae.distributions.base import VectorDistribution, double

__all__ = ["IsotropicNormalMixture"]


class IsotropicNormalMixture(VectorDistribution):
    r"""Mixture of N normals of one variance, from which each datum may leave one out.

    .. math:: p(z) = \frac1{|S|} \sum_{n \in S} N(z;\ \mu_n, \sigma^2 I), \qquad
              S = \{1, \dots, N\} \setminus \{i\}

    With ``num_neighbours`` only the normals nearest to z are summed, still over :math:`|S|`, which
    is a lower bound on p(z).

    Args:
        locs: Means ``(N, D)``; with ``num_neighbours``, what the search goes by.
        scale: Standard deviation, a tensor of shape ``()``.
        left_out: The normal that each datum leaves out, integers ``(B,)`` that belong to the last
            batch dimension of z; -1 leaves none out.
        num_neighbours: Number of normals to sum; None for all.
        encode: From numbers of normals ``(M,)`` to their means ``(M, D)``, which then replace the
            neighbours' ``locs`` in the density.
        max_elements: Largest number of elements (rows of z, N) to score at once.

    Example:
        >>> mixture = IsotropicNormalMixture(torch.tensor([[-2.0], [2.0]]), torch.tensor(1.0))
        >>> mixture.log_prob(torch.zeros(1))  # log N(2; 0, 1)
        tensor(-2.9189)
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "locs": constraints.independent(constraints.real, 2),
        "scale": constraints.positive,
    }
    support = constraints.real_vector  # type: ignore[assignment]
    has_rsample = False

    def __init__(
        self,
        locs: Tensor,
        scale: Tensor,
        *,
        left_out: Tensor | None = None,
        num_neighbours: int | None = None,
        encode: Callable[[Tensor], Tensor] | None = None,
        max_elements: int = 2**22,
        validate_args: bool | None = None,
    ):
        self.locs, self.scale, self.left_out, self.encode = locs, scale, left_out, encode
        self.num_neighbours, self.max_elements = num_neighbours, max_elements
        TorchDistribution.__init__(self, torch.Size(), locs.shape[-1:], validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        self.check_sample(value)
        batch = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        left = None if self.left_out is None else self.left_out.expand(batch).reshape(-1)
        flat = value.expand(*batch, value.shape[-1]).reshape(-1, value.shape[-1])
        rows = max(1, self.max_elements // len(self.locs))
        pieces = zip(flat.split(rows), _split(left, flat, rows), strict=True)
        log_sum = torch.cat([self._log_sum(*piece) for piece in pieces]).reshape(batch)
        size = len(self.locs) - (0 if left is None else (left >= 0).reshape(batch).to(value.dtype))
        constant = self.event_shape[0] * (self.scale.log() + 0.5 * math.log(2 * math.pi))
        return log_sum - constant - torch.as_tensor(size).to(log_sum).log()

    def _log_sum(self, value: Tensor, left: Tensor | None) -> Tensor:
        """Log of the summed exponentials of ``(rows, D)``, without the normals' constant."""
        k = self.num_neighbours
        if k is None or k >= len(self.locs) - (left is not None):
            locs = self.locs if self.encode is None else self.encode(_all(self.locs))
            squares = _squares(value, locs)
        else:
            with torch.no_grad():
                near = _without(_nearness(value, self.locs), left).topk(k).indices
            left = None  # not among the nearest
            locs = self.locs[near]
            if self.encode is not None:
                locs = self.encode(near.reshape(-1)).reshape(*near.shape, -1)
            squares = (value.unsqueeze(-2) - locs).square().sum(-1)
        scores = _without(-0.5 * squares / self.scale.square(), left)
        return scores.logsumexp(-1).to(value.dtype)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws; nothing is left out."""
        shape = torch.Size(sample_shape) + self.batch_shape
        with torch.no_grad():
            which = torch.randint(len(self.locs), (shape.numel(),), device=self.locs.device)
            loc = self.locs[which] if self.encode is None else self.encode(which)
            return (loc + self.scale * torch.randn_like(loc)).reshape(shape + self.event_shape)

    @property
    def mean(self) -> Tensor:
        return self.locs.mean(0).expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        variance = self.locs.var(0, correction=0) + self.scale.square()
        return variance.expand(self.batch_shape + self.event_shape)


def _split(left: Tensor | None, flat: Tensor, rows: int) -> Sequence[Tensor | None]:
    return [None] * -(-len(flat) // rows) if left is None else left.split(rows)


def _all(locs: Tensor) -> Tensor:
    return torch.arange(len(locs), device=locs.device)


def _squares(value: Tensor, locs: Tensor) -> Tensor:
    """``(rows, N)``: squared distances, by a product in float64 since the expansion cancels."""
    centre = double(locs).detach().mean(0)
    z, loc = double(value) - centre, double(locs) - centre
    squares = z.square().sum(-1, keepdim=True) + loc.square().sum(-1) - 2 * z @ loc.T
    return squares.clamp_min(0.0)


def _nearness(value: Tensor, locs: Tensor) -> Tensor:
    """``(rows, N)``: larger where the distance is smaller; in the precision of the values, which
    only a search can do with.
    """
    return value @ locs.T - 0.5 * locs.square().sum(-1)


def _without(scores: Tensor, left: Tensor | None) -> Tensor:
    """Scores ``(rows, N)``, with that of the normal left out at minus infinity."""
    if left is None:
        return scores
    column = left.clamp_min(0).unsqueeze(-1)
    kept = torch.where(left.unsqueeze(-1) < 0, scores.gather(-1, column), -math.inf)
    return scores.scatter(-1, column, kept)
