"""Positive values whose logarithm is Gaussian."""

import torch
from torch import Tensor
from torch.distributions import constraints

from pyrovae.distributions import positive
from pyrovae.likelihoods.location_scale import LocationScale
from pyrovae.likelihoods.positive import Positive

__all__ = ["LogNormal"]


class LogNormal(LocationScale):
    r"""Independent log-normal elements, for positive values that range over orders of magnitude.

    .. math:: p(x \mid z) = \prod_i N(\log x_i;\ \mu_i(z),\ \sigma_i^2) / x_i

    The decoder gives the means of log x. It is the density of x itself, so its evidence compares
    with that of any other density of x.

    Args:
        scale: Where sigma, the scale of log x, comes from: a positive number (fixed),
            ``"learned"`` (one for all elements), ``"per-element"`` or ``"decoder"``.
        initial_scale: Where a scale that is not fixed starts.
        min_scale: The lower limit of such a scale.

    Raises:
        ValueError: If the scale is neither positive and finite nor one of the names, if not
            0 <= min_scale < initial_scale, or if x is not positive.

    References:
        Handling Incomplete Heterogeneous Data using VAEs (Nazabal et al., 2020), section 3.1,
        `arXiv:1807.03653 <https://arxiv.org/abs/1807.03653>`_.

    Example:
        >>> import pyrovae as pv
        >>> vae = pv.VAE((4,), latent_dim=2, likelihood=pv.likelihoods.LogNormal())
        >>> vae.sample(3).shape
        torch.Size([3, 4])
    """

    support = constraints.positive
    domain = "is a density of positive numbers"
    advice = "Use likelihoods.Gaussian for values of any sign, or likelihoods.Poisson for counts"

    def __init__(
        self, scale: float | str = "learned", initial_scale: float = 1.0, min_scale: float = 1e-3
    ):
        super().__init__()
        self.use_scale(Positive("LogNormal scale", scale, initial_scale, min_scale))

    def noise(self, loc: Tensor, scale: Tensor):
        return positive.LogNormal(loc, scale)

    def initial_bias(self, mean: Tensor) -> Tensor:
        decoded = [torch.zeros_like(mean)] * self.scale_of.num_outputs
        variance = self.scale_of(*decoded).square()
        return super().initial_bias(mean.clamp(min=1e-30).log() - 0.5 * variance)
