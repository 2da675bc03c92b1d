"""Grey levels with a free probability each."""

import torch
from torch import Tensor

from pyrovae.distributions.levels import LevelCategorical, from_levels
from pyrovae.likelihoods.base import solve_increasing
from pyrovae.likelihoods.levels import Levels

__all__ = ["Categorical"]


class Categorical(Levels):
    r"""Independent categorical elements over grey levels, with a free probability for each level.

    .. math:: \log p(x \mid z) = \sum_i l_{i k_i} - \log\sum_j e^{l_{ij}},
              \qquad x_i = k_i / (L - 1)

    The decoder gives L logits for each element. They fit any histogram, but know nothing of the
    order of the levels; :class:`~pyrovae.likelihoods.DiscretizedLogistic` needs two outputs.

    Args:
        num_levels: The number L of levels, 256 for 8-bit images. Level k is stored as k / (L - 1).

    Raises:
        ValueError: If num_levels is less than 2, or if x holds anything but the levels.

    References:
        Pixel Recurrent Neural Networks (van den Oord et al., 2016), section 3.3,
        `arXiv:1601.06759 <https://arxiv.org/abs/1601.06759>`_.

    Example:
        >>> import pyrovae as pv
        >>> vae = pv.VAE((8, 8), latent_dim=2, likelihood=pv.likelihoods.Categorical(num_levels=17))
        >>> vae.sample(3).shape
        torch.Size([3, 8, 8])
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
