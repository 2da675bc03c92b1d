r"""Estimators whose gradient for the guide flows through the draws alone.

The derivative of log q(z | x) with respect to the guide's parameters, at fixed z, is called the
score. Its mean under q is zero, its variance is not. These estimators leave the score out, or
replace it by a derivative through z. The model keeps its whole gradient, also where its prior
shares parameters with the guide.
"""

import torch

from pyrovae.estimators.base import Estimator, Terms
from pyrovae.estimators.elbo import ELBO, weighted
from pyrovae.estimators.iwae import IWAE, Weighted
from pyrovae.estimators.rws import RWS
from pyrovae.particles import Particles
from pyrovae.weights import log_mean_exp

__all__ = ["DReG", "RWSDReG", "STL", "STLIWAE"]


class STL(Estimator):
    r"""Evidence lower bound with the sticking-the-landing gradient, in nats per datum.

    .. math:: \nabla_\phi \approx \frac1K \sum_{k=1}^K
              \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi}

    The same bound and expected gradient as :class:`ELBO`; at the exact posterior the guide's
    gradient vanishes for every single draw. Under :class:`~pyrovae.handlers.KLScale` the latent
    scores are multiplied by beta.

    References:
        Sticking the Landing: Simple, Lower-Variance Gradient Estimators for Variational Inference
        (Roeder et al., 2017,
        `arXiv:1703.09194 <https://arxiv.org/abs/1703.09194>`_), equation 8.

    Args:
        num_particles: Draws K for each datum.
        max_plate_nesting: Batch dimensions that the programs use themselves.

    Raises:
        ValueError: If a latent site has no ``rsample``.

    Example:
        >>> import torch
        >>> from pyrovae.testing import LinearGaussian
        >>> oracle = LinearGaussian()  # its guide is the exact posterior, so the bound is log p(x)
        >>> x = oracle.sample(2)
        >>> bound = STL().bound(oracle.model, oracle.guide, x)
        >>> bool(torch.allclose(bound, oracle.log_prob(x)))
        True
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


class _PathIWAE(Weighted):
    """IWAE whose gradient for the guide flows through the draws, weighted by a power of the
    normalised weights.
    """

    draws = "bridged"
    needs_rsample = True
    power: int

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
    r"""Importance-weighted bound with doubly reparameterised gradients for the guide, in nats per
    datum.

    .. math:: \nabla_\theta = \sum_k \tilde w_k \frac{\partial \log p(x, z_k)}{\partial\theta},
              \qquad
              \nabla_\phi = \sum_k \tilde w_k^2
              \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial\phi}, \qquad
              \tilde w_k = \frac{w_k}{\sum_j w_j}

    The same bound and expected gradient as :class:`IWAE`; the guide's signal-to-noise ratio does
    not fall with K. K = 1 is :class:`STL`.

    References:
        Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives (Tucker et al., 2018,
        `arXiv:1810.04152 <https://arxiv.org/abs/1810.04152>`_), equation 8.

    Args:
        num_particles: Draws K for each datum.
        max_plate_nesting: Batch dimensions that the programs use themselves.

    Raises:
        ValueError: If the programs are scaled, or a latent site has no ``rsample``.

    Example:
        >>> import torch
        >>> from pyrovae.testing import LinearGaussian
        >>> oracle = LinearGaussian()  # its guide is the exact posterior, so the bound is log p(x)
        >>> x = oracle.sample(2)
        >>> bound = DReG(num_particles=5).bound(oracle.model, oracle.guide, x)
        >>> bool(torch.allclose(bound, oracle.log_prob(x)))
        True
    """

    power = 2


class STLIWAE(_PathIWAE):
    r"""Importance-weighted bound whose guide gradient leaves the score out, in nats per datum.

    .. math:: \nabla_\phi \approx \sum_k \tilde w_k
              \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial\phi}

    For K > 1 this is *not* the gradient of the bound: the score that is left out has no mean of
    zero under the weights. Its bias and low variance are what :class:`DReG` is to be compared with;
    train with that one.

    References:
        Sticking the Landing: Simple, Lower-Variance Gradient Estimators for Variational Inference
        (Roeder et al., 2017,
        `arXiv:1703.09194 <https://arxiv.org/abs/1703.09194>`_), section 6.3.
        Its bias: Doubly Reparameterized Gradient Estimators for Monte Carlo
        Objectives (Tucker et al., 2018,
        `arXiv:1810.04152 <https://arxiv.org/abs/1810.04152>`_), section 5.

    Args:
        num_particles: Draws K for each datum.
        max_plate_nesting: Batch dimensions that the programs use themselves.

    Raises:
        ValueError: If the programs are scaled, or a latent site has no ``rsample``.

    Example:
        >>> from pyrovae.testing import LinearGaussian
        >>> oracle = LinearGaussian()
        >>> x = oracle.sample(2)
        >>> STLIWAE(num_particles=5).bound(oracle.model, oracle.guide, x).shape
        torch.Size([2])
    """

    power = 1


class RWSDReG(Weighted):
    r"""Reweighted wake-sleep's wake update with a doubly reparameterised gradient, in nats per
    datum.

    .. math:: \nabla_\phi = \sum_k (\tilde w_k - \tilde w_k^2)
              \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial\phi}

    The same bound and expected gradients as :class:`RWS`, for reparameterised guides, with less
    noise.

    References:
        Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives (Tucker et al., 2018,
        `arXiv:1810.04152 <https://arxiv.org/abs/1810.04152>`_), section 6.1.

    Args:
        num_particles: Draws K for each datum.
        max_plate_nesting: Batch dimensions that the programs use themselves.

    Raises:
        ValueError: If the programs are scaled, or a latent site has no ``rsample``.

    Example:
        >>> from pyrovae.testing import LinearGaussian
        >>> oracle = LinearGaussian()
        >>> x = oracle.sample(2)
        >>> RWSDReG(num_particles=5).bound(oracle.model, oracle.guide, x).shape
        torch.Size([2])
    """

    draws = "bridged"
    needs_rsample = True
    takes_auxiliary = False

    def target(self) -> Estimator:
        return RWS(self.num_particles, max_plate_nesting=int(self.max_plate_nesting))

    def terms(self, particles: Particles) -> Terms:
        log_w = particles.log_weights
        shares = log_w.detach().softmax(0)
        objective = particles.doubly_reparameterized(
            particles.log_p, particles.log_q, shares, 1 - shares
        )
        return Terms(log_mean_exp(log_w), objective)
