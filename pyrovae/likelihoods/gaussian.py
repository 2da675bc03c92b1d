"""Real values with Gaussian noise."""

import torch
from torch import Tensor

from pyrovae.distributions.location_scale import FittedNormal, Normal
from pyrovae.likelihoods.location_scale import LocationScale
from pyrovae.likelihoods.positive import Positive

__all__ = ["Gaussian"]


class Gaussian(LocationScale):
    r"""Independent Gaussian elements, for real values.

    .. math:: p(x \mid z) = \prod_i N(x_i;\ \mu_i(z),\ \sigma_i^2)

    The decoder gives the means. With ``scale="optimal"`` one sigma for all elements is fitted in
    closed form, :math:`\sigma^2 = \operatorname{mean} (x - \mu(z))^2` over the elements, data and
    particles of each training batch. Its gradient vanishes at the optimum, so none is taken. Such a
    sigma has seen x, so it serves training alone: the running average of sigma squared is kept, and
    evaluation (eval mode, or no gradients) uses that fixed average, under which p(x | z) is a
    density like any other. The bound that a training step reports is that of its fitted sigma.

    Args:
        scale: Where sigma comes from: a positive number (fixed), ``"learned"`` (one for all
            elements), ``"per-element"`` (one each), ``"decoder"`` (a second decoder output for each
            element) or ``"optimal"``.
        initial_scale: Where a scale that is not fixed starts.
        min_scale: The lower limit of such a scale, so that a perfect reconstruction has a finite
            density.

    Raises:
        ValueError: If the scale is neither positive and finite nor one of the names, if not
            0 <= min_scale < initial_scale, or if x is not finite.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014), appendix C.2,
        `arXiv:1312.6114 <https://arxiv.org/abs/1312.6114>`_; Simple and Effective VAE
        Training with Calibrated Decoders (Rybkin et al., 2021), section 3, for learned and optimal
        scales, `arXiv:2006.13202 <https://arxiv.org/abs/2006.13202>`_.

    Example:
        >>> import pyrovae as pv
        >>> vae = pv.VAE((4,), latent_dim=2, likelihood=pv.likelihoods.Gaussian("learned"))
        >>> vae.sample(3).shape
        torch.Size([3, 4])
    """

    running_variance: Tensor
    num_updates: Tensor

    def __init__(
        self, scale: float | str = 1.0, initial_scale: float = 1.0, min_scale: float = 1e-3
    ):
        super().__init__()
        self.optimal = scale == "optimal"
        source = initial_scale if self.optimal else scale
        self.use_scale(Positive("Gaussian scale", source, initial_scale, min_scale))
        if self.optimal:
            self.register_buffer("running_variance", torch.tensor(float(initial_scale) ** 2))
            self.register_buffer("num_updates", torch.zeros(()))

    def noise(self, loc: Tensor, scale: Tensor):
        if not self.optimal:
            return Normal(loc, scale)
        scale = self.running_variance.sqrt()
        if self.training and torch.is_grad_enabled():
            return FittedNormal(loc, scale, min_scale=self.scale_of.floor, report=self._update)
        return Normal(loc, scale)

    def _update(self, variance: Tensor) -> None:
        """Mean of the first 100 variances, exponential average from there on."""
        with torch.no_grad():
            self.num_updates += 1
            num = self.num_updates.clamp(max=100)
            self.running_variance += (variance - self.running_variance) / num
