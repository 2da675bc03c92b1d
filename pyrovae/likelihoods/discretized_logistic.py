"""Grey levels by a rounded logistic."""

import torch
from torch import Tensor

from pyrovae.distributions import discretized
from pyrovae.likelihoods.base import solve_increasing
from pyrovae.likelihoods.levels import Levels
from pyrovae.likelihoods.positive import Positive

__all__ = ["DiscretizedLogistic"]


class DiscretizedLogistic(Levels):
    r"""Independent discretised logistic elements: the probability of a grey level, not the density of a real.

    .. math:: p(x \mid z) = \prod_i \sigma\Big(\frac{x_i + h - \mu_i}{s_i}\Big)
              - \sigma\Big(\frac{x_i - h - \mu_i}{s_i}\Big), \qquad h = \frac1{2 (L - 1)}

    The lowest level takes all mass below it, the highest all above. The decoder's first output is
    :math:`\mu - \tfrac12`, so that it starts at mid-grey. Bits per dimension follow without any scaling.

    Args:
        num_levels: L; 256 for 8-bit images. Level k is stored as k / (L - 1).
        scale: Where s comes from, in units of the stored values: a positive number, ``"learned"``,
            ``"per-element"`` or ``"decoder"``.
        initial_scale: Where a scale that is not fixed starts.
        min_scale: Lower limit of such a scale.

    Raises:
        ValueError: If num_levels is less than 2, or the scale is neither positive and finite nor one of the
            names; on use, if x holds anything but the levels.

    References:
        Improving Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016), section 5.1.
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

    def build(self) -> None:
        self.scale_of.build(self.data_shape)

    def distribution(self, outputs: Tensor):
        loc, *raw = outputs.unbind(self.output_dim)
        return discretized.DiscretizedLogistic(loc + 0.5, self.scale_of(*raw), self.num_levels)

    def initial_bias(self, mean: Tensor) -> Tensor:
        bias = torch.zeros(self.output_shape(), dtype=mean.dtype, device=mean.device)
        scale = self.scale_of(
            bias.select(self.output_dim, 1) if self.scale_of.num_outputs else None
        ).detach()

        def mean_of(loc: Tensor) -> Tensor:
            return discretized.DiscretizedLogistic(
                loc + 0.5, scale.to(mean.dtype), self.num_levels
            ).mean

        bias.select(self.output_dim, 0).copy_(solve_increasing(mean_of, mean.clamp(0.01, 0.99)))
        return bias
