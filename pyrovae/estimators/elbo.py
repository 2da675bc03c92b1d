"""The evidence lower bound: by Monte Carlo, and with its KL in closed form."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from pyrovae.distributions.base import innermost
from pyrovae.estimators.base import Estimator, Terms
from pyrovae.particles import WRAPPERS, LatentSite, Particles

__all__ = ["AnalyticKL", "ELBO"]


class ELBO(Estimator):
    r"""Evidence lower bound (ELBO) by Monte Carlo, in nats per datum.

    .. math:: \frac1K \sum_{k=1}^K \log p(x, z_k) - \log q(z_k \mid x), \qquad z_k \sim q

    Gradients are reparameterised where the guide has ``rsample``; other sites add the
    score-function term :math:`\log q(z_k)\,[f(z_k)]_{\text{stopped}}`, with the mean of the other
    particles as baseline when K > 1. Under :class:`~pyrovae.handlers.KLScale` the latent scores are
    multiplied by beta.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014,
        `arXiv:1312.6114 <https://arxiv.org/abs/1312.6114>`_), equation 6 (their estimator A).

    Args:
        num_particles: Draws K for each datum.
        max_plate_nesting: Batch dimensions that the programs use themselves.

    Example:
        >>> import torch
        >>> from pyrovae.testing import LinearGaussian
        >>> oracle = LinearGaussian()  # its guide is the exact posterior, so the bound is log p(x)
        >>> x = oracle.sample(2)
        >>> bound = ELBO(num_particles=3).bound(oracle.model, oracle.guide, x)
        >>> bool(torch.allclose(bound, oracle.log_prob(x)))
        True
    """

    def terms(self, particles: Particles) -> Terms:
        integrand = log_ratio(particles)
        bound = integrand.mean(0)
        return Terms(bound, bound + _discrete_score(particles, integrand))


class AnalyticKL(Estimator):
    r"""Evidence lower bound with the KL of each latent site in closed form, in nats per datum.

    .. math:: \frac1K \sum_{k=1}^K \log p(x \mid z_k)
              - \mathrm{KL}(q(z \mid x) \,\|\, p(z)), \qquad z_k \sim q

    For a diagonal normal posterior and a standard normal prior,
    :math:`-\mathrm{KL} = \frac12 \sum_d (1 + \log\sigma_d^2 - \mu_d^2 - \sigma_d^2)`. In a
    hierarchy the KL of a layer given the one above is in closed form, and averaged over the draws
    above. This needs a guide that draws the sites in the model's order. A bottom-up guide does not:
    the layer above depends on the draw below.

    The KL of a site without a closed form, or out of order, is estimated from the same draws, with
    one warning for each such site. :attr:`fallbacks` has the names of these sites in the last run.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014,
        `arXiv:1312.6114 <https://arxiv.org/abs/1312.6114>`_), equation 7 and appendix B.

    Args:
        num_particles: Draws K for each datum.
        strict: Raise instead of falling back.
        max_plate_nesting: Batch dimensions that the programs use themselves.

    Raises:
        ValueError: With ``strict``, if a site has no closed form.

    Example:
        >>> from pyrovae.testing import LinearGaussian
        >>> oracle = LinearGaussian()
        >>> x = oracle.sample(2)
        >>> AnalyticKL(strict=True).bound(oracle.model, oracle.guide, x).shape
        torch.Size([2])
    """

    def __init__(self, num_particles: int = 1, *, strict: bool = False, max_plate_nesting: int = 1):
        super().__init__(num_particles, max_plate_nesting=max_plate_nesting)
        self.strict = strict
        self.fallbacks: tuple[str, ...] = ()
        self._warned: set[str] = set()

    def terms(self, particles: Particles) -> Terms:
        divergences = self._divergences(particles)
        integrand = particles.log_likelihood - sum(
            (site.kl_weight * divergences[site.name] for site in particles.sites.values()),
            torch.zeros_like(particles.log_likelihood),
        )
        bound = integrand.mean(0)
        return Terms(bound, bound + _discrete_score(particles, integrand))

    def target(self) -> Estimator:
        return ELBO(self.num_particles, max_plate_nesting=int(self.max_plate_nesting))

    def kl(self, particles: Particles) -> Tensor:
        return sum(
            self._divergences(particles).values(), torch.zeros_like(particles.log_likelihood)
        ).mean(0)

    def _divergences(self, particles: Particles) -> dict[str, Tensor]:
        """The KL of each site, ``(K, B)``."""
        found, fallbacks = {}, []
        for site in particles.sites.values():
            divergence = site.closed_form
            if divergence is None:
                fallbacks.append(site.name)
                divergence = site.log_q - site.log_p
                self._report(site)
            found[site.name] = divergence
        self.fallbacks = tuple(fallbacks)
        return found

    def _report(self, site: LatentSite) -> None:
        q, p = (type(innermost(d, WRAPPERS)).__name__ for d in (site.posterior, site.prior))
        why = f"no closed form for KL({q} || {p}) at site '{site.name}'"
        if site.prior is None:
            why = f"the guide's density is that of the auxiliary site '{site.name}'"
        elif (site._masks[0] is None) != (site._masks[1] is None):
            why = f"site '{site.name}' is masked in one program only"
        elif not site.in_order:
            why = f"the guide draws site '{site.name}' before a site that precedes it in the model"
        if self.strict:
            raise ValueError(
                f"AnalyticKL(strict=True): {why}. "
                "Use estimators.ELBO, or strict=False to estimate this site by Monte Carlo."
            )
        if site.name not in self._warned:
            self._warned.add(site.name)
            warnings.warn(
                f"AnalyticKL: {why}; its KL is estimated by Monte Carlo.",
                stacklevel=2,
            )


def log_ratio(particles: Particles) -> Tensor:
    """``(K, B)``: log p(x, z) - log q(z | x), with the latent scores times their KL weights."""
    return particles.log_likelihood + weighted(particles, lambda site: site.log_p - site.log_q)


def weighted(particles: Particles, term: Callable[[LatentSite], Tensor]) -> Tensor:
    """Sum of a term over latent and auxiliary sites, each times its KL weight, ``(K, B)``."""
    total = torch.zeros_like(particles.log_likelihood)
    for site in particles.sites.values():
        total = total + (term(site) if is_one(site.kl_weight) else site.kl_weight * term(site))
    return total


def is_one(weight: float | Tensor) -> bool:
    """Whether a weight is the number one, as opposed to a tensor whose value may change."""
    return isinstance(weight, float) and weight == 1.0


def _discrete_score(particles: Particles, integrand: Tensor) -> Tensor | float:
    """The score term of the sites that are not reparameterised."""
    return score_term(
        integrand, [site.score for site in particles.sites.values() if not site.reparameterized]
    )


def score_term(integrand: Tensor, log_q: list[Tensor]) -> Tensor | float:
    """``(B,)``: mean of log q times what a draw's integrand ``(K, B)`` exceeds the mean of the
    others by.

    Zero without any log q.
    """
    if not log_q:
        return 0.0
    learned, num = integrand.detach(), len(integrand)
    if num > 1:
        learned = learned - (learned.sum(0) - learned) / (num - 1)
    return (sum(log_q[1:], log_q[0]) * learned).mean(0)
