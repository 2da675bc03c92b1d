"""Importance-weighted bounds."""

from pyrovae.estimators.base import Estimator, Terms
from pyrovae.particles import Particles
from pyrovae.weights import log_mean_exp

__all__ = ["IWAE"]


class IWAE(Estimator):
    r"""Importance-weighted bound on log p(x), in nats per datum.

    .. math:: \log \frac1K \sum_{k=1}^K \frac{p(x, z_k)}{q(z_k \mid x)}, \qquad z_k \sim q

    It rises with K to log p(x). K = 1 is the ELBO.

    References:
        Importance Weighted Autoencoders (Burda et al., 2016), equation 8.

    Args:
        num_particles: Draws K for each datum.
        max_plate_nesting: Batch dimensions that the programs use themselves.

    Raises:
        ValueError: If the programs are scaled, or a latent site has no ``rsample``.
    """

    importance_weighted = True
    needs_rsample = True

    def terms(self, particles: Particles) -> Terms:
        bound = log_mean_exp(particles.log_weights)
        return Terms(bound, bound)
