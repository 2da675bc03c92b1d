"""Control of the KL term within a step: wrappers of estimators that are linear in the scores.

Each changes what is differentiated, never what is reported: ``bound`` and ``loss`` values are those
of the wrapped estimator, so evaluation knows nothing of the control. Control *between* steps, a
beta that follows the step or listens to training, is in :mod:`pyrovae.schedules`; ``FreeBits`` goes
together with it, ``Capacity`` does not.
"""

from abc import abstractmethod
from dataclasses import replace
from typing import Literal, Self

import torch
from torch import Tensor

from pyrovae.declare import is_count
from pyrovae.estimators.base import Estimator, Terms
from pyrovae.estimators.elbo import AnalyticKL, is_one
from pyrovae.estimators.enumerated import EnumELBO
from pyrovae.particles import LatentSite, Particles
from pyrovae.schedules import Constant, Schedule

__all__ = ["Capacity", "FreeBits"]


class KLControl(Estimator):
    """Base class of the wrappers. A subclass defines which weights the latent sites have in the
    gradient.

    Args:
        estimator: Any estimator that is linear in the scores, such as ``ELBO``, ``AnalyticKL`` or
            ``STL``.

    Raises:
        TypeError: If it is not one of pyrovae's estimators.
        ValueError: If it is importance-weighted.
    """

    looks_at_batch = True

    def __init__(self, estimator: Estimator):
        name = type(self).__name__
        if not isinstance(estimator, Estimator):
            raise TypeError(
                f"{name} wraps an instance of a pyrovae.estimators class, found {estimator!r}."
            )
        if estimator.importance_weighted:
            raise ValueError(
                f"{name} controls a KL term, and {estimator!r} has none: its bound is "
                "importance-weighted. Wrap estimators.ELBO, AnalyticKL or STL."
            )
        if isinstance(estimator, EnumELBO):
            raise ValueError(
                f"{name} takes the KL of draws, and {estimator!r} sums values that are not drawn. "
                "Wrap estimators.ELBO, AnalyticKL or STL."
            )
        super().__init__(
            estimator.num_particles, max_plate_nesting=int(estimator.max_plate_nesting)
        )
        self.estimator = estimator
        for name in ("draws", "needs_rsample", "needs_density", "takes_auxiliary"):
            setattr(self, name, getattr(estimator, name))

    @abstractmethod
    def controlled(self, particles: Particles) -> Particles:
        """The particles with the weights that their sites have in the gradient."""

    def terms(self, particles: Particles) -> Terms:
        objective = self.estimator.terms(self.controlled(particles)).objective
        return Terms(self.estimator.terms(particles).bound, objective)

    def kl(self, particles: Particles) -> Tensor:
        return self.estimator.kl(particles)

    def with_draws(self, num_draws: int) -> Self:
        made = self.redeclare(estimator=self.estimator.with_draws(num_draws))
        made.max_plate_nesting = self.max_plate_nesting
        return made

    @staticmethod
    def _batch_kl(site: LatentSite) -> Tensor:
        """The site's KL summed over each datum's elements and averaged over data, without
        gradients.
        """
        with torch.no_grad():
            divergence = site.closed_form
            return (site.log_q - site.log_p if divergence is None else divergence).mean()


class FreeBits(KLControl):
    r"""ELBO in which the KL of each group of latent elements costs nothing up to an allowance.

    .. math:: \mathbb E_q[\log p(x \mid z)] - \sum_g \max\!\Big(\lambda,\;
              \frac1B \sum_b \mathrm{KL}_g(q(z \mid x_b) \,\|\, p(z))\Big)

    A group whose KL, averaged over the batch, lies below :math:`\lambda` has no gradient from its
    KL.

    References:
        Improved Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016,
        `arXiv:1606.04934 <https://arxiv.org/abs/1606.04934>`_), appendix C.8.

    Args:
        estimator: What to wrap; default ``AnalyticKL()``.
        nats: Allowance of each group in nats per datum (free *bits* by name: one bit is 0.693
            nats).
        per: ``"dimension"`` (each element of each site), a number of successive elements, or
            ``"site"``.

    Raises:
        ValueError: If the allowance is negative or ``per`` is something else; on use, if elements
            are to be told apart of a site whose distributions are not independent across them, or
            ``per`` does not divide them.

    Example:
        >>> from pyrovae.testing import LinearGaussian
        >>> oracle = LinearGaussian()
        >>> x = oracle.sample(2)
        >>> FreeBits(AnalyticKL(), nats=0.1).bound(oracle.model, oracle.guide, x).shape
        torch.Size([2])
    """

    def __init__(
        self,
        estimator: Estimator | None = None,
        nats: float = 0.25,
        *,
        per: int | Literal["dimension", "site"] = "dimension",
    ):
        super().__init__(AnalyticKL() if estimator is None else estimator)
        if not nats >= 0:
            raise ValueError(f"FreeBits needs an allowance of nats >= 0, found {nats}.")
        if per not in ("dimension", "site") and not is_count(per):
            raise ValueError(
                f"FreeBits needs per='dimension', 'site' or a positive integer, found {per!r}."
            )
        self.nats, self.per = float(nats), per

    def check(self, particles: Particles) -> None:
        super().check(particles)
        if particles.mapped:
            raise ValueError(
                "FreeBits needs the KL of each latent site, but the guide's density is that of "
                f"its auxiliary sites {list(particles.auxiliary)}. Use Capacity, or a guide that "
                "draws the latent sites themselves."
            )

    def controlled(self, particles: Particles) -> Particles:
        gated = {name: self._gated(site) for name, site in particles.latents.items()}
        return replace(particles, latents=gated)

    def _gated(self, site: LatentSite) -> LatentSite:
        if self.per == "site":
            return replace(site, kl_weight=site.kl_weight * (self._batch_kl(site) > self.nats))
        with torch.no_grad():
            shape = site.prior.event_shape
            kl = self._element_kl(site).flatten()
            size = 1 if self.per == "dimension" else int(self.per)
            if kl.numel() % size:
                raise ValueError(
                    f"FreeBits(per={size}) does not divide the {kl.numel()} elements of "
                    f"'{site.name}'."
                )
            counts = kl.reshape(-1, size).sum(1) > self.nats
            weight = counts.to(kl.dtype).repeat_interleave(size).reshape(shape)
        return site.by_element(weight)

    @staticmethod
    def _element_kl(site: LatentSite) -> Tensor:
        """The KL of each element of the event, over inner plates and masks as the bound counts it,
        averaged over particles and data.
        """
        try:
            elements = replace(site.by_element(), _reduce=lambda scores: scores)
        except ValueError as error:
            raise ValueError(f"{error} FreeBits(per='site') takes it as a whole.") from error
        kl = elements.closed_form
        if kl is None:
            kl = elements.log_q - elements.log_p
        inner = tuple(range(1, kl.dim() - len(site.prior.event_shape) - 1))
        return (kl.sum(inner) if inner else kl).mean((0, 1))


class Capacity(KLControl):
    r"""ELBO that pulls the KL of the batch towards a capacity, which may grow during training.

    .. math:: \mathbb E_q[\log p(x \mid z)] - \gamma\, \Big| \frac1B \sum_b
              \mathrm{KL}(q(z \mid x_b) \,\|\, p(z)) - C(t) \Big|

    The KL is that of all latent sites together.

    References:
        Understanding disentangling in beta-VAE (Burgess et al., 2018,
        `arXiv:1804.03599 <https://arxiv.org/abs/1804.03599>`_), equation 8.

    Args:
        estimator: What to wrap; default ``AnalyticKL()``.
        capacity: C in nats per datum, or a schedule of it over steps, which :func:`pyrovae.fit`
            follows; in a loop of your own call :meth:`advance`.
        gamma: Strength.

    Raises:
        ValueError: If gamma or a constant capacity is negative; on use, under a
            :class:`~pyrovae.handlers.KLScale` (the ``beta`` of :func:`pyrovae.fit`), which would be
            a second weight of the same KL.

    Example:
        >>> from pyrovae.testing import LinearGaussian
        >>> oracle = LinearGaussian()
        >>> x = oracle.sample(2)
        >>> Capacity(AnalyticKL(), capacity=5.0).bound(oracle.model, oracle.guide, x).shape
        torch.Size([2])
    """

    def __init__(
        self,
        estimator: Estimator | None = None,
        capacity: float | Schedule = 25.0,
        *,
        gamma: float = 100.0,
    ):
        super().__init__(AnalyticKL() if estimator is None else estimator)
        if not gamma >= 0:
            raise ValueError(f"Capacity needs gamma >= 0, found {gamma}.")
        self.capacity = capacity if isinstance(capacity, Schedule) else Constant(capacity)
        self.gamma = float(gamma)
        # In a tensor, so that a captured step sees it change.
        self.now = torch.tensor(self.capacity(0), dtype=torch.float64)

    def with_draws(self, num_draws: int) -> Self:
        made = super().with_draws(num_draws)
        made.now = self.now
        return made

    def advance(self, step: int) -> None:
        self.now.fill_(self.capacity(step))

    def check(self, particles: Particles) -> None:
        super().check(particles)
        if any(not is_one(site.kl_weight) for site in particles.sites.values()):
            raise ValueError(
                "Capacity sets the weight of the KL itself, so a KLScale (the beta of fit) has no "
                "meaning under it. Leave beta at 1 and choose gamma, or use ELBO with a beta."
            )

    def controlled(self, particles: Particles) -> Particles:
        sites = particles.sites.values()
        total = sum((self._batch_kl(site) for site in sites), torch.zeros(()))
        if self.now.device != total.device:
            self.now = self.now.to(total.device)
        pull = self.gamma * torch.sign(total - self.now).to(total.dtype)
        weighted = {site.name: replace(site, kl_weight=pull) for site in sites}
        return replace(
            particles,
            latents={name: weighted[name] for name in particles.latents},
            auxiliary={name: weighted[name] for name in particles.auxiliary},
        )
