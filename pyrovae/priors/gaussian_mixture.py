"""A learned mixture of diagonal normals."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyrovae.distributions.mixture import DiagonalNormalMixture
from pyrovae.priors.base import Prior

__all__ = ["GaussianMixture"]


class GaussianMixture(Prior):
    r"""Learned mixture of C diagonal normals.

    .. math:: p(z) = \sum_c \pi_c\, N(z;\ \mu_c, \operatorname{diag}\sigma_c^2)

    At the start all weights are equal, all scales one, and the means standard normal draws times
    ``spread``.

    Args:
        num_components: Number of components C.
        spread: Standard deviation of the initial means.
        min_scale: Added to each scale, so that no component collapses onto a point.

    Raises:
        ValueError: If ``num_components < 1``, ``spread < 0``, or ``min_scale`` is outside [0, 1).

    References:
        Deep Unsupervised Clustering with Gaussian Mixture Variational Autoencoders (Dilokthanakul
        et al., 2016), `arXiv:1611.02648 <https://arxiv.org/abs/1611.02648>`_; VAE with a VampPrior
        (Tomczak and Welling, 2018), section 3, where it is called MoG,
        `arXiv:1705.07120 <https://arxiv.org/abs/1705.07120>`_.

    Example:
        >>> prior = GaussianMixture(num_components=10).bind(latent_dim=2, data_shape=(28, 28))
        >>> z = prior().sample((5,))
        >>> z.shape, prior.responsibilities(z).shape
        (torch.Size([5, 2]), torch.Size([5, 10]))
    """

    def __init__(self, num_components: int = 10, spread: float = 1.0, min_scale: float = 1e-3):
        super().__init__()
        if num_components < 1:
            raise ValueError(f"GaussianMixture needs num_components >= 1, found {num_components}.")
        if not (spread >= 0 and 0 <= min_scale < 1):
            raise ValueError(
                f"GaussianMixture needs spread >= 0 and 0 <= min_scale < 1, found {spread} and "
                f"{min_scale}."
            )
        self.num_components, self.spread, self.min_scale = num_components, spread, min_scale

    def build(self) -> None:
        shape = (self.num_components, self.latent_dim)
        self.locs = nn.Parameter(self.spread * torch.randn(shape))
        self.raw_scales = nn.Parameter(torch.full(shape, math.log(math.expm1(1 - self.min_scale))))
        self.logits = nn.Parameter(torch.zeros(self.num_components))

    def forward(self) -> DiagonalNormalMixture:
        scales = softplus(self.raw_scales) + self.min_scale
        return DiagonalNormalMixture(self.locs, scales, self.logits, validate_args=False)

    def responsibilities(self, z: Tensor) -> Tensor:
        """``(*batch, C)``: p(c | z), the probability of each component given z."""
        return self().component_log_prob(z).softmax(-1)
