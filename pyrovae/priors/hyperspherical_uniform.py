"""The uniform prior on a sphere."""

import torch
from torch import Tensor

from pyrovae.distributions import spherical
from pyrovae.priors.base import Prior

__all__ = ["HypersphericalUniform"]


class HypersphericalUniform(Prior):
    r"""Uniform on the unit sphere :math:`S^{D-1}`, with ``latent_dim`` D the dimension of the space around it.

    .. math:: p(z) = \Gamma(D/2) \big/ (2 \pi^{D/2}), \qquad \|z\| = 1

    Densities are per unit of surface area. Pairs with ``posteriors.PowerSpherical``, to which the KL has a closed form.

    Raises:
        ValueError: If D < 2.

    References:
        Hyperspherical Variational Auto-Encoders (Davidson et al., 2018).
    """

    space = "sphere"
    zeros: Tensor

    def build(self) -> None:
        self.register_buffer("zeros", torch.zeros(self.latent_dim), persistent=False)
        self()

    def forward(self) -> spherical.HypersphericalUniform:
        return spherical.HypersphericalUniform(self.zeros, validate_args=False)  # (D,)
