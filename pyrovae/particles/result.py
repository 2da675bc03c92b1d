"""What a run of guide and model with K particles gives: sites, scores, and the gradient through the draws."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from pyro.distributions.util import scale_and_mask, sum_rightmost
from torch import Tensor
from torch.distributions import Independent, constraints, kl_divergence

Draws = Literal["attached", "detached", "bridged"]
"""How draws hang together with the guide: see :func:`pyrovae.particles.draw`."""


class Bridge:
    """The drawn value as the model sees it: gradients that come back across it are multiplied by ``ratio``."""

    def __init__(self, drawn: Tensor, event_dim: int) -> None:
        self.value = drawn.view_as(drawn)
        self.inner = drawn.dim() - event_dim - 2  # plates between particles and data
        self.event_dim = event_dim
        self.ratio: Tensor | None = None
        self.value.register_hook(self._back)

    def _back(self, gradient: Tensor) -> Tensor:
        if self.ratio is None:
            return torch.zeros_like(gradient)
        num_particles, num_data = self.ratio.shape
        shape = (num_particles, *[1] * self.inner, num_data, *[1] * self.event_dim)
        return gradient * self.ratio.reshape(shape)


@dataclass(frozen=True)
class LatentSite:
    """One latent site: its value, its two distributions, and their scores, each ``(K, B)``.

    Attributes:
        name: Name of the site.
        value: ``(K, B, *event)``; a leaf tensor where the particles were drawn with ``draws="detached"``.
        drawn: The same numbers, still attached to the guide's parameters.
        prior: Its distribution in the model, given the sites before it.
        posterior: Its distribution in the guide, given the sites before it.
        kl_weight: Product of the scales put on the site, beside the data plate's own; 1.0 without any.
        in_order: Whether every site before it in the model is before it in the guide too. If not, its prior may
            depend on sites drawn *given* it, and KL(posterior || prior) is no term of the bound.
    """

    name: str
    value: Tensor
    drawn: Tensor
    prior: Any
    posterior: Any
    kl_weight: float | Tensor
    in_order: bool
    _reduce: Callable[[Tensor], Tensor] = field(repr=False)
    _masks: tuple[Any, Any] = field(repr=False)
    _whole: "LatentSite | None" = field(default=None, repr=False)
    _seen: Tensor | None = field(default=None, repr=False)

    @cached_property
    def log_p(self) -> Tensor:
        """``(K, B)``: log-density under the model."""
        return self._reduce(
            scale_and_mask(
                self.prior.log_prob(self.value if self._seen is None else self._seen),
                mask=self._masks[0],
            )
        )

    @cached_property
    def log_q(self) -> Tensor:
        """``(K, B)``: log-density under the guide."""
        return self._reduce(
            scale_and_mask(self.posterior.log_prob(self.value), mask=self._masks[1])
        )

    @property
    def score(self) -> Tensor:
        """``(K, B)``: log q whose derivative is the score of the draw, without the weights of :meth:`by_element`."""
        return self.log_q if self._whole is None else self._whole.log_q

    @property
    def reparameterized(self) -> bool:
        """Whether gradients flow from the value to the guide."""
        return bool(getattr(self.posterior, "has_rsample", False))

    def by_element(self, weight: Tensor | float = 1.0) -> "LatentSite":
        """The site with each element of its event scored by itself, times ``weight``, before they are summed.

        Args:
            weight: Broadcasts to ``(*batch, *event)``.

        Raises:
            ValueError: If either distribution is not independent across elements, as a full-rank normal, a
                mixture or a flow.
        """
        dims = len(self.prior.event_shape)

        def reduce(scores: Tensor) -> Tensor:
            summed: Any = sum_rightmost(scores * weight, dims)
            return self._reduce(summed)

        return replace(
            self,
            prior=_elements(self.prior, self.name, "prior"),
            posterior=_elements(self.posterior, self.name, "posterior"),
            _reduce=reduce,
            _whole=self,
            _masks=tuple(
                m[(...,) + (None,) * dims] if isinstance(m, Tensor) else m for m in self._masks
            ),
        )

    @property
    def closed_form(self) -> Tensor | None:
        """``(K, B)``: KL(posterior || prior) where it is a term of the bound and has a closed form, else None."""
        if not self.in_order:
            return None
        try:
            return self.reduce(kl_divergence(self.posterior, self.prior))
        except NotImplementedError:
            return None

    def reduce(self, per_site: Tensor) -> Tensor:
        """Sum a tensor of this site's batch shape over inner plates, to ``(K, B)``, under the model's mask."""
        return self._reduce(scale_and_mask(per_site, mask=self._masks[0]))


@dataclass(frozen=True)
class Particles:
    """K draws from the guide for each of B data, scored under both programs.

    Attributes:
        latents: The latent sites by name, in the guide's order.
        log_likelihood: ``(K, B)``, log p(x | z) summed over observed sites.
        num_particles: K.
        num_data: B.
        scale: Subsampling scale of the data plate (full size over batch size); belongs outside any logsumexp.
        likelihood_scaled: Whether a handler scales the observed sites.
        num_dims: Observed elements of one datum, over all observed sites.
        discrete: Whether every observed site is discrete, so that log p(x) is a log-probability.
        completed: Names of the latent sites that the guide lacks and the model drew from their priors.
        auxiliary: Names of the guide's sites that the model lacks.
    """

    latents: dict[str, LatentSite]
    log_likelihood: Tensor
    num_particles: int
    num_data: int
    scale: float
    likelihood_scaled: bool
    num_dims: int = 0
    discrete: bool = False
    completed: tuple[str, ...] = ()
    auxiliary: tuple[str, ...] = ()
    _bridge: Bridge | None = field(default=None, repr=False)

    @cached_property
    def log_prior(self) -> Tensor:
        """``(K, B)``: log p(z), without KL scale."""
        return self._sum(site.log_p for site in self.latents.values())

    @cached_property
    def log_q(self) -> Tensor:
        """``(K, B)``: log q(z | x), without KL scale."""
        return self._sum(site.log_q for site in self.latents.values())

    @property
    def log_p(self) -> Tensor:
        """``(K, B)``: log p(x, z), without KL scale."""
        return self.log_likelihood + self.log_prior

    @property
    def log_weights(self) -> Tensor:
        """``(K, B)``: log p(x, z) - log q(z | x)."""
        return self.log_p - self.log_q

    @property
    def scaled(self) -> bool:
        """Whether a handler scales any site, so that the weights are not those of the programs as declared."""
        weights = (site.kl_weight for site in self.latents.values())
        return self.likelihood_scaled or any(isinstance(w, Tensor) or w != 1.0 for w in weights)

    def doubly_reparameterized(
        self, log_p: Tensor, log_q: Tensor, shares: Tensor, ratio: Tensor | float = 1.0
    ) -> Tensor:
        r"""Surrogate for a gradient without the guide's score, from particles drawn with ``draws="bridged"``.

        .. math:: \sum_k a_k\, \partial_{\text{direct}} \log p_k
                  + \sum_k a_k r_k\, \frac{\partial (\log p_k - \log q_k)}{\partial z_k}
                    \frac{\partial z_k}{\partial\phi}

        With one latent site the model is differentiated once for both parts, which share everything but a factor
        at z; with several, the second part is that of :meth:`pathwise`.

        Args:
            log_p, log_q: ``(K, B)``, made of these particles' scores.
            shares: The weights a, ``(K, B)``.
            ratio: The factor r, ``(K, B)`` or a number.
        """
        shares = shares.detach()
        ratio = (ratio * torch.ones_like(shares)).detach()
        direct = (shares * log_p).sum()
        if self._bridge is None:
            return direct + self.pathwise((shares * ratio * (log_p - log_q)).sum())
        self._bridge.ratio = ratio
        return direct - self.pathwise((shares * ratio * log_q).sum())

    def pathwise(self, objective: Tensor) -> Tensor:
        r"""Surrogate for the gradient of ``objective`` that flows through the draws alone.

        For particles drawn with ``draws="detached"`` and an objective f made of their scores, the result is a scalar
        whose gradient is :math:`\sum_k (\partial f / \partial z_k)\, \partial z_k / \partial\phi`, all layers
        included; the direct dependence of the scores on any parameter is left out. Its value has no meaning.
        Without gradients enabled it is zero.
        """
        if not objective.requires_grad:  # without gradients, or of scores that are constant
            return torch.zeros_like(objective)
        sites = [
            s
            for s in self.latents.values()
            if s.drawn.requires_grad and s.value.is_floating_point()
        ]
        leaves = [site.value for site in sites]
        if not leaves:
            return torch.zeros_like(objective)
        found = torch.autograd.grad(objective, leaves, retain_graph=True, allow_unused=True)
        slopes = [
            torch.zeros_like(z) if g is None else g for z, g in zip(leaves, found, strict=True)
        ]
        surrogate = torch.zeros_like(objective)
        # A later layer was drawn from a distribution that the leaves of earlier layers shape: walk back.
        for i in reversed(range(len(sites))):
            drawn, slope = sites[i].drawn, slopes[i].detach()
            if i and drawn.requires_grad:
                upstream = torch.autograd.grad(
                    drawn, leaves[:i], slope, retain_graph=True, allow_unused=True
                )
                for j, g in enumerate(upstream):
                    if g is not None:
                        slopes[j] = slopes[j] + g
            surrogate = surrogate + (slope * drawn).sum()
        return surrogate

    def _sum(self, terms: Any) -> Tensor:
        total = torch.zeros_like(self.log_likelihood)
        for term in terms:
            total = total + term
        return total


def _elements(distribution: Any, name: str, role: str) -> Any:
    """The distribution with its event's elements in the batch shape."""
    inner = distribution
    while isinstance(inner, Independent):
        inner = inner.base_dist
    if inner.event_shape:
        raise ValueError(
            f"The {role} of site '{name}' is a {type(inner).__name__}, which is not independent across elements. "
            "Treat the site as a whole, or use an elementwise distribution such as a diagonal normal."
        )
    return inner


def real_support(site: LatentSite) -> bool:
    """Whether a site's values may be any real numbers, as far as its two distributions say."""
    supports = [_real(fn) for fn in (site.prior, site.posterior)]
    return any(supports) and False not in supports


def _real(distribution: Any) -> bool | None:
    """Whether a distribution lives on all real numbers; None if it does not say."""
    try:
        support = distribution.support
    except (AttributeError, NotImplementedError):
        return None
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return None if support is None else support is constraints.real
