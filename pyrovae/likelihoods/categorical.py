"""Grey levels with a free probability each."""

import torch
from torch import Tensor

from pyrovae.distributions.levels import LevelCategorical, from_levels
from pyrovae.likelihoods.base import solve_increasing
from pyrovae.likelihoods.levels import Levels

__all__ = ["Categorical"]


class Categorical(Levels):
    r"""Independent categorical elements over L levels; the decoder gives L logits for each.

    .. math:: \log p(x \mid z) = \sum_i l_{i k_i} - \log\sum_j e^{l_{ij}}, \qquad x_i = k_i / (L - 1)

    Any histogram can be fitted, at the price of L outputs an element, which know nothing of the levels' order;
    :class:`~pyrovae.likelihoods.DiscretizedLogistic` takes two.

    Args:
        num_levels: L; 256 for 8-bit images. Level k is stored as k / (L - 1).

    Raises:
        ValueError: If num_levels is less than 2; on use, if x holds anything but the levels.

    References:
        Pixel Recurrent Neural Networks (van den Oord et al., 2016), section 3.3.
    """

    def __init__(self, num_levels: int = 256):
        super().__init__()
        self.use_levels(num_levels)
        self.num_outputs = num_levels

    def distribution(self, outputs: Tensor):
        return LevelCategorical(outputs.movedim(self.output_dim, -1))

    def initial_bias(self, mean: Tensor) -> Tensor:
        """The flattest logits with this mean: linear in the level."""
        levels = from_levels(
            torch.arange(self.num_levels, dtype=mean.dtype, device=mean.device), self.num_levels
        )

        def mean_of(slope: Tensor) -> Tensor:
            return (slope.unsqueeze(-1) * levels).softmax(-1) @ levels

        slope = solve_increasing(mean_of, mean.clamp(0.02, 0.98))
        return (slope.unsqueeze(-1) * (levels - 0.5)).movedim(-1, self.output_dim)
