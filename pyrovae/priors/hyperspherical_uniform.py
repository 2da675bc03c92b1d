"""The uniform prior on a sphere."""

import torch
from torch import Tensor

from pyrovae.distributions import spherical
from pyrovae.priors.base import Prior

__all__ = ["HypersphericalUniform"]


class HypersphericalUniform(Prior):
    r"""Uniform on the unit sphere :math:`S^{D-1}`; ``latent_dim`` D is that of the space around it.

    .. math:: p(z) = \Gamma(D/2) \big/ (2 \pi^{D/2}), \qquad \|z\| = 1

    Densities are per unit of surface area. It goes with ``posteriors.PowerSpherical``, and the KL
    between the two has a closed form.

    Raises:
        ValueError: If D < 2.

    References:
        Hyperspherical Variational Auto-Encoders (Davidson et al., 2018),
        `arXiv:1804.00891 <https://arxiv.org/abs/1804.00891>`_.

    Example:
        >>> prior = HypersphericalUniform().bind(latent_dim=2, data_shape=(28, 28))
        >>> prior().log_prob(torch.tensor([0.0, 1.0]))  # the circle has length 2 pi
        tensor(-1.8379)
    """

    space = "sphere"
    zeros: Tensor

    def build(self) -> None:
        self.register_buffer("zeros", torch.zeros(self.latent_dim), persistent=False)
        self()  # raises an error where the dimension is too small

    def forward(self) -> spherical.HypersphericalUniform:
        return spherical.HypersphericalUniform(self.zeros, validate_args=False)  # (D,)
