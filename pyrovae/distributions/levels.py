r"""Grey levels, and a free probability for each.

The one convention of this library: level k of L, k = 0, ..., L - 1, is stored as the float k / (L -
1), so that black is 0 and white is 1. Eight-bit images have L = 256, binary ones L = 2,
scikit-learn's digits L = 17.
"""

import torch
from torch import Tensor
from torch.distributions import constraints

from pyrovae.declare import Declared
from pyrovae.distributions.elementwise import Elementwise

__all__ = ["GreyLevels", "LevelCategorical", "from_levels", "off_level", "to_levels"]


def to_levels(x: Tensor, num_levels: int) -> Tensor:
    """The level k of each stored value k / (L - 1), as a whole float, clamped to 0, ..., L - 1."""
    return (x * (num_levels - 1)).round().clamp(0, num_levels - 1)


def from_levels(levels: Tensor, num_levels: int) -> Tensor:
    """The stored value k / (L - 1) of each level k."""
    return levels / (num_levels - 1)


def off_level(x: Tensor, num_levels: int) -> Tensor:
    """Which values are no grey level: outside [0, 1], NaN, or more than 1 % of a step from the
    nearest.
    """
    distance = (x * (num_levels - 1) - to_levels(x, num_levels)).abs()
    return ~(distance < 0.01)


class GreyLevels(Declared, constraints.Constraint):
    """The L stored levels k / (L - 1).

    They are discrete: log p of a distribution over them is a log-probability, with no unit to
    convert.
    """

    is_discrete = True

    def __init__(self, num_levels: int):
        self.num_levels = num_levels

    def check(self, value: Tensor) -> Tensor:
        return ~off_level(value, self.num_levels)


class LevelCategorical(Elementwise):
    r"""A categorical distribution over the L grey levels of each element.

    .. math:: \log p(k) = l_k - \log\sum_j e^{l_j}

    Args:
        logits: ``(*batch, L)``; the levels along the last dimension.
    """

    logits: Tensor

    def __init__(self, logits: Tensor):
        # The largest logit is taken off first: beside it, a sum of small probabilities would be
        # rounded away.
        self.largest = logits.detach().amax(-1)
        rest = (logits - self.largest.unsqueeze(-1)).exp().sum(-1).log()
        super().__init__(log_normalizer=rest)
        self.logits = logits
        self.num_levels = logits.shape[-1]

    @property
    def support(self) -> GreyLevels:
        return GreyLevels(self.num_levels)

    def density(self, value: Tensor) -> Tensor:
        index = to_levels(value, self.num_levels).long().unsqueeze(-1)
        logits = self.logits
        shape = torch.broadcast_shapes(index.shape[:-1], logits.shape[:-1])
        chosen = (
            logits.expand(*shape, self.num_levels).gather(-1, index.expand(*shape, 1)).squeeze(-1)
        )
        return chosen - self.largest - self.log_normalizer

    def sample(self, sample_shape=torch.Size()) -> Tensor:  # noqa: B008  # torch's own signature
        shape = torch.Size(sample_shape) + self._batch_shape
        with torch.no_grad():
            # The largest of logits plus Gumbel noise; -log of an exponential is one.
            noise = torch.empty(
                *shape, self.num_levels, dtype=self.logits.dtype, device=self.logits.device
            )
            levels = (self.logits - noise.exponential_().log_()).argmax(-1)
            return from_levels(levels.to(self.logits.dtype), self.num_levels)

    def draw(self, *parameters: Tensor) -> Tensor:
        raise NotImplementedError

    @property
    def mean(self) -> Tensor:
        levels = torch.arange(self.num_levels, dtype=self.logits.dtype, device=self.logits.device)
        return (self.logits.softmax(-1) @ from_levels(levels, self.num_levels)).expand(
            self._batch_shape
        )
