"""Importance-weighted bounds, and their combinations over groups of particles."""

from typing import Self

from torch import Tensor

from pyrovae.estimators.base import Estimator, Terms, check_count
from pyrovae.particles import Particles
from pyrovae.weights import log_mean_exp, shared

__all__ = ["CIWAE", "IWAE", "MIWAE", "PIWAE", "Weighted"]


class Weighted(Estimator):
    """Base of the importance-weighted estimators, which make ten draws by default."""

    importance_weighted = True

    def __init__(self, num_particles: int = 10, *, max_plate_nesting: int = 1):
        super().__init__(num_particles, max_plate_nesting=max_plate_nesting)


class IWAE(Weighted):
    r"""Importance-weighted bound on log p(x), in nats per datum.

    .. math:: \log \frac1K \sum_{k=1}^K \frac{p(x, z_k)}{q(z_k \mid x)}, \qquad z_k \sim q

    It rises with K to log p(x). K = 1 is the ELBO. The signal-to-noise ratio of the guide's
    gradient falls like :math:`1/\sqrt K`; :class:`DReG` has the same expected gradient without
    that.

    References:
        Importance Weighted Autoencoders (Burda et al., 2016,
        `arXiv:1509.00519 <https://arxiv.org/abs/1509.00519>`_), equation 8.

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
        >>> bound = IWAE(num_particles=5).bound(oracle.model, oracle.guide, x)
        >>> bool(torch.allclose(bound, oracle.log_prob(x)))
        True
    """

    needs_rsample = True

    def terms(self, particles: Particles) -> Terms:
        bound = log_mean_exp(particles.log_weights)
        return Terms(bound, bound)


class CIWAE(Weighted):
    r"""A straight line between the ELBO and the importance-weighted bound, in nats per datum.

    .. math:: \beta \,\frac1K \sum_{k=1}^K \log w_k + (1 - \beta) \log \frac1K \sum_{k=1}^K w_k

    This beta is the weight of the ELBO, from 0 (:class:`IWAE`) to 1 (:class:`ELBO`); it does not
    scale the KL.

    References:
        Tighter Variational Bounds are Not Necessarily Better (Rainforth et al., 2018,
        `arXiv:1802.04537 <https://arxiv.org/abs/1802.04537>`_), equation 14.

    Args:
        beta: Weight of the ELBO.
        num_particles: Draws K for each datum, shared by both.
        max_plate_nesting: Batch dimensions that the programs use themselves.

    Raises:
        ValueError: If beta is not in [0, 1]; on use, as for :class:`IWAE`.

    Example:
        >>> import torch
        >>> from pyrovae.testing import LinearGaussian
        >>> oracle = LinearGaussian()  # its guide is the exact posterior, so the bound is log p(x)
        >>> x = oracle.sample(2)
        >>> bound = CIWAE(beta=0.5, num_particles=5).bound(oracle.model, oracle.guide, x)
        >>> bool(torch.allclose(bound, oracle.log_prob(x)))
        True
    """

    needs_rsample = True

    def __init__(self, beta: float = 0.5, num_particles: int = 10, *, max_plate_nesting: int = 1):
        if not 0 <= beta <= 1:
            raise ValueError(f"CIWAE needs a beta in [0, 1], the weight of the ELBO, found {beta}.")
        super().__init__(num_particles, max_plate_nesting=max_plate_nesting)
        self.beta = float(beta)

    def terms(self, particles: Particles) -> Terms:
        log_w = particles.log_weights
        bound = log_mean_exp(log_w)
        if self.beta:  # an impossible particle has an infinite mean
            bound = self.beta * log_w.mean(0) + (1 - self.beta) * bound
        return Terms(bound, bound)


class _Grouped(Weighted):
    """M groups of K particles each: M x K draws for each datum."""

    needs_rsample = True

    def __init__(self, num_bounds: int = 4, num_particles: int = 10, *, max_plate_nesting: int = 1):
        super().__init__(num_particles, max_plate_nesting=max_plate_nesting)
        check_count(type(self).__name__, "num_bounds", num_bounds)
        self.num_bounds = num_bounds

    @property
    def num_draws(self) -> int:
        return self.num_bounds * self.num_particles

    def with_draws(self, num_draws: int) -> Self:
        if num_draws % self.num_bounds:
            raise ValueError(
                f"{self!r} needs a multiple of {self.num_bounds} draws, found {num_draws}."
            )
        return super().with_draws(num_draws // self.num_bounds)

    def grouped(self, log_w: Tensor) -> Tensor:
        """``(M, K, B)``: log-weights of the particles of each group."""
        return log_w.unflatten(0, (self.num_bounds, self.num_particles))


class MIWAE(_Grouped):
    r"""Mean of M independent importance-weighted bounds of K particles each, in nats per datum.

    .. math:: \frac1M \sum_{m=1}^M \log \frac1K \sum_{k=1}^K w_{mk}

    ``MIWAE(M, 1)`` is the ELBO with M draws; ``MIWAE(1, K)`` is ``IWAE(K)``.

    References:
        Tighter Variational Bounds are Not Necessarily Better (Rainforth et al., 2018,
        `arXiv:1802.04537 <https://arxiv.org/abs/1802.04537>`_), equation 13.

    Args:
        num_bounds: How many bounds M are averaged.
        num_particles: Draws K within each; M x K draws for each datum in all.
        max_plate_nesting: Batch dimensions that the programs use themselves.

    Raises:
        ValueError: As for :class:`IWAE`.

    Example:
        >>> from pyrovae.testing import LinearGaussian
        >>> oracle = LinearGaussian()
        >>> x = oracle.sample(2)
        >>> MIWAE(num_bounds=2, num_particles=5).bound(oracle.model, oracle.guide, x).shape
        torch.Size([2])
    """

    def terms(self, particles: Particles) -> Terms:
        bound = log_mean_exp(self.grouped(particles.log_weights), 1).mean(0)
        return Terms(bound, bound)


class PIWAE(_Grouped):
    r"""The model follows ``IWAE(M K)``, the guide ``MIWAE(M, K)``; reported is the former, in nats
    per datum.

    .. math:: \nabla_\theta \log \frac1{MK} \sum_{m,k} w_{mk}, \qquad
              \nabla_\phi \frac1M \sum_m \log \frac1K \sum_k w_{mk}

    The model gets the tighter bound, the guide the better signal-to-noise ratio. Parameters of the
    guide that the prior shares (as in a Vamp prior) get the model's gradient through the prior.

    References:
        Tighter Variational Bounds are Not Necessarily Better (Rainforth et al., 2018,
        `arXiv:1802.04537 <https://arxiv.org/abs/1802.04537>`_), section 5.3.

    Args:
        num_bounds: Groups M.
        num_particles: Draws K in each; M x K draws for each datum in all.
        max_plate_nesting: Batch dimensions that the programs use themselves.

    Raises:
        ValueError: As for :class:`IWAE`.

    Example:
        >>> from pyrovae.testing import LinearGaussian
        >>> oracle = LinearGaussian()
        >>> x = oracle.sample(2)
        >>> PIWAE(num_bounds=2, num_particles=5).bound(oracle.model, oracle.guide, x).shape
        torch.Size([2])
    """

    draws = "detached"

    def terms(self, particles: Particles) -> Terms:
        log_w = particles.log_weights
        bound = log_mean_exp(log_w)
        within = self.grouped(log_w)
        shares = within.detach().softmax(1).flatten(0, 1) / self.num_bounds  # (MK, B)
        model = shared(log_w.detach().softmax(0), particles.log_p).sum()
        path = particles.pathwise(log_mean_exp(within, 1).mean(0).sum())
        return Terms(bound, model + (path - (shares * particles.log_q).sum()))
