"""Grey levels by a rounded logistic."""

import torch
from torch import Tensor

from pyrovae.distributions import discretized
from pyrovae.likelihoods.base import solve_increasing
from pyrovae.likelihoods.levels import Levels
from pyrovae.likelihoods.positive import Positive

__all__ = ["DiscretizedLogistic"]


class DiscretizedLogistic(Levels):
    r"""Independent discretised logistic elements, which give each grey level a probability.

    .. math:: p(x \mid z) = \prod_i \sigma\Big(\frac{x_i + h - \mu_i}{s_i}\Big)
              - \sigma\Big(\frac{x_i - h - \mu_i}{s_i}\Big), \qquad h = \frac1{2 (L - 1)}

    The lowest level takes all mass below it, and the highest all mass above. The first decoder
    output is :math:`\mu - \tfrac12`, so that the location starts at mid-grey.

    Args:
        num_levels: The number L of levels, 256 for 8-bit images. Level k is stored as k / (L - 1).
        scale: Where the scale s comes from, in units of the stored values: a positive number
            (fixed), ``"learned"``, ``"per-element"`` or ``"decoder"``.
        initial_scale: Where a scale that is not fixed starts.
        min_scale: The lower limit of such a scale.

    Raises:
        ValueError: If num_levels is less than 2, if the scale is neither positive and finite nor
            one of the names, or if x holds anything but the levels.

    References:
        Improving Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016),
        section 5.1, `arXiv:1606.04934 <https://arxiv.org/abs/1606.04934>`_.

    Example:
        >>> import pyrovae as pv
        >>> vae = pv.VAE((28, 28), latent_dim=2, likelihood=pv.likelihoods.DiscretizedLogistic())
        >>> vae.sample(3).shape
        torch.Size([3, 28, 28])
    """

    def __init__(
        self,
        num_levels: int = 256,
        scale: float | str = "decoder",
        initial_scale: float = 0.1,
        min_scale: float = 5e-4,
    ):
        super().__init__()
        self.use_levels(num_levels)
        self.scale_of = Positive("DiscretizedLogistic scale", scale, initial_scale, min_scale)
        self.num_outputs = 1 + self.scale_of.num_outputs

    def distribution(self, outputs: Tensor):
        loc, *raw = outputs.unbind(self.output_dim)
        return discretized.DiscretizedLogistic(loc + 0.5, self.scale_of(*raw), self.num_levels)

    def initial_bias(self, mean: Tensor) -> Tensor:
        decoded = [torch.zeros_like(mean)] * self.scale_of.num_outputs
        scale = self.scale_of(*decoded).detach()

        def mean_of(loc: Tensor) -> Tensor:
            return discretized.DiscretizedLogistic(
                loc + 0.5, scale.to(mean.dtype), self.num_levels
            ).mean

        return self._first_outputs(solve_increasing(mean_of, mean.clamp(0.01, 0.99)))
