r"""Gradients for the guide that flow through the draws alone.

The derivative of log q(z | x) with respect to the guide's own parameters, at fixed z, has mean zero under q but
not variance zero. These estimators leave it out, or turn it into a derivative through z. Whatever depends on
parameters through the model, a learned prior that shares the encoder included, keeps its whole gradient.
"""

import torch

from pyrovae.estimators.base import Estimator, Terms
from pyrovae.estimators.elbo import ELBO, weighted
from pyrovae.estimators.iwae import IWAE
from pyrovae.estimators.rws import RWS
from pyrovae.particles import Particles
from pyrovae.weights import log_mean_exp

__all__ = ["DReG", "RWSDReG", "STL", "STLIWAE"]


class STL(Estimator):
    r"""Evidence lower bound whose guide gradient sticks the landing, in nats per datum.

    .. math:: \nabla_\phi \approx \frac1K \sum_{k=1}^K
              \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi}

    The same bound and expected gradient as :class:`ELBO`; at the exact posterior the guide's gradient vanishes
    for every single draw. Under :class:`~pyrovae.handlers.KLScale` the latent scores are multiplied by beta.

    References:
        Sticking the Landing: Simple, Lower-Variance Gradient Estimators for Variational Inference
        (Roeder et al., 2017), equation 8.

    Args:
        num_particles: Draws K for each datum.
        max_plate_nesting: Batch dimensions that the programs use themselves.

    Raises:
        ValueError: If a latent site has no ``rsample``.
    """

    draws = "bridged"
    needs_rsample = True

    def target(self) -> Estimator:
        return ELBO(self.num_particles, max_plate_nesting=int(self.max_plate_nesting))

    def terms(self, particles: Particles) -> Terms:
        log_p = particles.log_likelihood + weighted(particles, lambda site: site.log_p)
        log_q = weighted(particles, lambda site: site.log_q)
        shares = torch.full_like(log_p, 1 / particles.num_particles)
        return Terms(
            (log_p - log_q).mean(0), particles.doubly_reparameterized(log_p, log_q, shares)
        )


class _PathIWAE(Estimator):
    """IWAE with the guide's gradient along the draws, under some power of the normalised weights."""

    importance_weighted = True
    draws = "bridged"
    needs_rsample = True
    power: int

    def __init__(self, num_particles: int = 10, *, max_plate_nesting: int = 1):
        super().__init__(num_particles, max_plate_nesting=max_plate_nesting)

    def target(self) -> Estimator:
        return IWAE(self.num_particles, max_plate_nesting=int(self.max_plate_nesting))

    def terms(self, particles: Particles) -> Terms:
        log_w = particles.log_weights
        shares = log_w.detach().softmax(0)
        ratio = shares ** (self.power - 1)
        log_p, log_q = particles.log_p, particles.log_q
        if self.power == 2:  # the weights move with auxiliary draws, whose density is in neither
            log_p, log_q = log_p + particles.log_auxiliary, log_q + particles.log_auxiliary
        objective = particles.doubly_reparameterized(log_p, log_q, shares, ratio)
        return Terms(log_mean_exp(log_w), objective)


class DReG(_PathIWAE):
    r"""Importance-weighted bound with doubly reparameterised gradients for the guide, in nats per datum.

    .. math:: \nabla_\theta = \sum_k \tilde w_k \frac{\partial \log p(x, z_k)}{\partial\theta}, \qquad
              \nabla_\phi = \sum_k \tilde w_k^2
              \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial\phi}, \qquad
              \tilde w_k = \frac{w_k}{\sum_j w_j}

    The same bound and expected gradient as :class:`IWAE`; the guide's signal-to-noise ratio does not fall with
    K. K = 1 is :class:`STL`.

    References:
        Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives (Tucker et al., 2018), equation 8.

    Args:
        num_particles: Draws K for each datum.
        max_plate_nesting: Batch dimensions that the programs use themselves.

    Raises:
        ValueError: If the programs are scaled, or a latent site has no ``rsample``.
    """

    power = 2


class STLIWAE(_PathIWAE):
    r"""Importance-weighted bound whose guide gradient leaves the score out, in nats per datum.

    .. math:: \nabla_\phi \approx \sum_k \tilde w_k
              \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial\phi}

    For K > 1 this is *not* the gradient of the bound: the score that is left out has no mean of zero under the
    weights. Its bias and low variance are what :class:`DReG` is to be compared with; train with that one.

    References:
        Sticking the Landing: Simple, Lower-Variance Gradient Estimators for Variational Inference
        (Roeder et al., 2017), section 6.3; bias: Doubly Reparameterized Gradient Estimators for Monte Carlo
        Objectives (Tucker et al., 2018), section 5.

    Args:
        num_particles: Draws K for each datum.
        max_plate_nesting: Batch dimensions that the programs use themselves.

    Raises:
        ValueError: If the programs are scaled, or a latent site has no ``rsample``.
    """

    power = 1


class RWSDReG(Estimator):
    r"""Reweighted wake-sleep's wake update with a doubly reparameterised gradient, in nats per datum.

    .. math:: \nabla_\phi = \sum_k (\tilde w_k - \tilde w_k^2)
              \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial\phi}

    The same bound and expected gradients as :class:`RWS`, for reparameterised guides, with less noise.

    References:
        Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives (Tucker et al., 2018), section 6.1.

    Args:
        num_particles: Draws K for each datum.
        max_plate_nesting: Batch dimensions that the programs use themselves.

    Raises:
        ValueError: If the programs are scaled, or a latent site has no ``rsample``.
    """

    importance_weighted = True
    draws = "bridged"
    needs_rsample = True
    takes_auxiliary = False

    def __init__(self, num_particles: int = 10, *, max_plate_nesting: int = 1):
        super().__init__(num_particles, max_plate_nesting=max_plate_nesting)

    def target(self) -> Estimator:
        return RWS(self.num_particles, max_plate_nesting=int(self.max_plate_nesting))

    def terms(self, particles: Particles) -> Terms:
        log_w = particles.log_weights
        shares = log_w.detach().softmax(0)
        objective = particles.doubly_reparameterized(
            particles.log_p, particles.log_q, shares, 1 - shares
        )
        return Terms(log_mean_exp(log_w), objective)
