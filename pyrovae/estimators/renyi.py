"""The variational Renyi bound."""

import math

from pyrovae.estimators.base import Terms
from pyrovae.estimators.iwae import Weighted
from pyrovae.particles import Particles
from pyrovae.weights import log_mean_exp

__all__ = ["Renyi"]


class Renyi(Weighted):
    r"""Variational Renyi bound of order alpha, in nats per datum.

    .. math:: \frac{1}{1 - \alpha} \log \frac1K \sum_{k=1}^K w_k^{1 - \alpha},
              \qquad w_k = \frac{p(x, z_k)}{q(z_k \mid x)}

    It falls as alpha rises: alpha = 0 is :class:`IWAE`, alpha = 1 is :class:`ELBO`, minus infinity
    the largest log-weight (VR-max) and infinity the smallest. For alpha < 0 the bound of infinitely
    many particles lies
    *above* log p(x) (alpha = -1 is the chi upper bound), while that of few still lies below.

    References:
        Renyi Divergence Variational Inference (Li and Turner, 2016,
        `arXiv:1602.02311 <https://arxiv.org/abs/1602.02311>`_), equation 14;
        Variational Inference via chi Upper Bound Minimization (Dieng et al., 2017,
        `arXiv:1611.00328 <https://arxiv.org/abs/1611.00328>`_), for alpha = -1.

    Args:
        alpha: Order, any number, infinities included.
        num_particles: Draws K for each datum.
        max_plate_nesting: Batch dimensions that the programs use themselves.

    Raises:
        ValueError: If alpha is not a number; on use, as for :class:`IWAE`.

    Example:
        >>> import torch
        >>> from pyrovae.testing import LinearGaussian
        >>> oracle = LinearGaussian()  # its guide is the exact posterior, so the bound is log p(x)
        >>> x = oracle.sample(2)
        >>> bound = Renyi(alpha=0.5, num_particles=5).bound(oracle.model, oracle.guide, x)
        >>> bool(torch.allclose(bound, oracle.log_prob(x)))
        True
    """

    needs_rsample = True

    def __init__(self, alpha: float = 0.5, num_particles: int = 10, *, max_plate_nesting: int = 1):
        if math.isnan(alpha):
            raise ValueError(
                "Renyi needs a number alpha, found nan. Use 0 for IWAE, 1 for the ELBO."
            )
        super().__init__(num_particles, max_plate_nesting=max_plate_nesting)
        self.alpha = float(alpha)

    def terms(self, particles: Particles) -> Terms:
        log_w = particles.log_weights
        power = 1 - self.alpha
        if power == 0:
            bound = log_w.mean(0)
        elif math.isinf(power):
            bound = log_w.amax(0) if power > 0 else log_w.amin(0)
        else:
            bound = log_mean_exp(power * log_w) / power
        return Terms(bound, bound)
