"""Score-function gradients: for any latent site, discrete ones included."""

import math

import torch

from pyrovae.estimators.base import Estimator, Terms
from pyrovae.estimators.elbo import ELBO, log_ratio, score_term
from pyrovae.estimators.iwae import IWAE, Weighted
from pyrovae.particles import Particles
from pyrovae.weights import leave_one_out, log_mean_exp

__all__ = ["ScoreELBO", "VIMCO"]


class ScoreELBO(Estimator):
    r"""Evidence lower bound with score-function gradients at every site, in nats per datum.

    .. math:: \nabla_\phi \approx \frac1K \sum_k \left(f_k - \frac{1}{K-1} \sum_{j \neq k}
              f_j\right)
              \nabla_\phi \log q(z_k \mid x), \qquad f_k = \log p(x, z_k) - \log q(z_k \mid x)

    The same bound as :class:`ELBO`, which does this at discrete sites only. The mean of the other
    draws is the baseline; K = 1 has none. Under :class:`~pyrovae.handlers.KLScale` the latent
    scores are multiplied by beta.

    References:
        Black Box Variational Inference (Ranganath et al., 2014,
        `arXiv:1401.0118 <https://arxiv.org/abs/1401.0118>`_), equation 2; the baseline: Buy 4
        REINFORCE Samples, Get a Baseline for Free! (Kool et al., 2019), equation 8.

    Args:
        num_particles: Draws K for each datum.
        max_plate_nesting: Batch dimensions that the programs use themselves.

    Example:
        >>> from pyrovae.testing import DiscreteMixture
        >>> oracle = DiscreteMixture()
        >>> x = oracle.sample(2)
        >>> ScoreELBO(num_particles=4).bound(oracle.model, oracle.guide, x).shape
        torch.Size([2])
    """

    draws = "detached"
    needs_density = True

    def __init__(self, num_particles: int = 2, *, max_plate_nesting: int = 1):
        super().__init__(num_particles, max_plate_nesting=max_plate_nesting)

    def target(self) -> Estimator:
        return ELBO(self.num_particles, max_plate_nesting=int(self.max_plate_nesting))

    def terms(self, particles: Particles) -> Terms:
        integrand = log_ratio(particles)
        bound = integrand.mean(0)
        scores = [site.score for site in particles.sites.values() if site.is_random]
        return Terms(bound, bound + score_term(integrand, scores))


class VIMCO(Weighted):
    r"""Importance-weighted bound with a leave-one-out score-function gradient, in nats per datum.

    .. math:: \nabla_\phi \approx \sum_k (\hat L - \hat L_{-k}) \nabla_\phi \log q(z_k \mid x)
              + \sum_k \tilde w_k \nabla_\phi \log w_k

    where :math:`\hat L` is the bound of :class:`IWAE` and :math:`\hat L_{-k}` the same with log w_k
    replaced by the mean of the other log-weights. Any latent site will do; draws are not
    differentiated.

    References:
        Variational Inference for Monte Carlo Objectives (Mnih and Rezende, 2016,
        `arXiv:1602.06725 <https://arxiv.org/abs/1602.06725>`_), equations 8 to 10, with the
        geometric mean.

    Args:
        num_particles: Draws K >= 2 for each datum.
        max_plate_nesting: Batch dimensions that the programs use themselves.

    Raises:
        ValueError: If K is 1, or, on use, if the programs are scaled.

    Example:
        >>> from pyrovae.testing import DiscreteMixture
        >>> oracle = DiscreteMixture()
        >>> x = oracle.sample(2)
        >>> VIMCO(num_particles=4).bound(oracle.model, oracle.guide, x).shape
        torch.Size([2])
    """

    draws = "detached"
    least_particles = 2  # the others make each one's baseline

    def target(self) -> Estimator:
        return IWAE(self.num_particles, max_plate_nesting=int(self.max_plate_nesting))

    def terms(self, particles: Particles) -> Terms:
        log_w, num = particles.log_weights, particles.num_particles
        bound = log_mean_exp(log_w)
        with torch.no_grad():
            impossible = log_w == -math.inf
            possible = log_w.masked_fill(impossible, 0.0)
            stand_in = (possible.sum(0) - possible) / (num - 1)
            stand_in = stand_in.masked_fill(impossible.sum(0) > impossible, -math.inf)
            without = torch.logaddexp(leave_one_out(log_w), stand_in) - log_w.new_tensor(num).log()
            # Where all others are impossible, zero is a baseline that they make as well as any.
            learned = bound - without.masked_fill(without == -math.inf, 0.0)  # (K, B)
        score = particles.log_q + particles.log_auxiliary
        return Terms(bound, bound + (learned * score).sum(0))
