"""A posterior of directions."""

import torch
from torch import Tensor
from torch.nn.functional import normalize, softplus

from pyrovae.distributions import spherical
from pyrovae.posteriors.base import Posterior

__all__ = ["PowerSpherical"]


class PowerSpherical(Posterior):
    r"""Power spherical distribution on the unit sphere.

    .. math:: q(z \mid x) \propto (1 + \mu(x)^\top z)^{\kappa(x)}

    Draws are exact and reparameterised. The encoder has D + 1 outputs: the direction before
    normalisation, and the concentration before softplus. A direction shorter than 1e-6 is replaced
    by the first axis. It goes with ``priors.HypersphericalUniform`` and ``priors.Vamp``.

    Args:
        min_concentration: Added to kappa.

    Raises:
        ValueError: If ``min_concentration`` is not positive, or D < 2.

    References:
        The Power Spherical distribution (De Cao and Aziz, 2020),
        `arXiv:2006.04437 <https://arxiv.org/abs/2006.04437>`_.

    Example:
        >>> from pyrovae import nets
        >>> q = PowerSpherical().bind(latent_dim=3, data_shape=(6,), encoder=nets.MLP(8))
        >>> bool(q(torch.zeros(5, 6)).rsample().norm(dim=-1).allclose(torch.ones(5)))
        True
    """

    space = "sphere"

    def __init__(self, min_concentration: float = 1e-3):
        super().__init__()
        if not min_concentration > 0:
            raise ValueError(f"min_concentration must be positive, found {min_concentration}.")
        self.min_concentration = min_concentration

    def build(self) -> None:
        if self.latent_dim < 2:
            raise ValueError(f"A sphere needs latent_dim >= 2, found {self.latent_dim}.")

    def output_size(self) -> int:
        return self.latent_dim + 1

    def distribution(self, outputs: Tensor) -> spherical.PowerSpherical:
        direction, raw = outputs.split([self.latent_dim, 1], -1)
        concentration = softplus(raw.squeeze(-1)) + self.min_concentration
        # Outputs of zero have no direction, but every x needs a distribution.
        axis = torch.zeros_like(direction)
        axis[..., 0] = 1
        direction = torch.where(direction.square().sum(-1, keepdim=True) < 1e-12, axis, direction)
        return spherical.PowerSpherical(
            normalize(direction, dim=-1), concentration, validate_args=False
        )
