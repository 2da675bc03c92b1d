"""What a run of guide and model with K particles gives: sites, scores, and the gradient through the
draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from pyrovae.particles.site import LatentSite
from pyrovae.weights import shared

Draws = Literal["attached", "detached", "bridged"]
"""How draws hang together with the guide: see :func:`pyrovae.particles.draw`."""


class Bridge:
    """The draws as the model sees them: gradients that come back are multiplied by ``ratio``,
    ``(K, B)``.

    Args:
        drawn: One tensor that holds all particles, or one tensor for each particle.
        event_dim: Event dimensions of the site.
        together: Whether it is one tensor that holds all particles.
    """

    def __init__(self, drawn: Sequence[Tensor], event_dim: int, *, together: bool) -> None:
        self.values = tuple(value.view_as(value) for value in drawn)
        self.ratio: Tensor | None = None
        for particle, value in enumerate(self.values):
            value.register_hook(self._back(None if together else particle, event_dim))

    def _back(self, particle: int | None, event_dim: int) -> Any:
        def back(gradient: Tensor) -> Tensor:
            if self.ratio is None:
                return torch.zeros_like(gradient)
            lead = self.ratio.shape if particle is None else self.ratio.shape[1:]
            ratio = self.ratio if particle is None else self.ratio[particle]
            inner = [1] * (gradient.dim() - event_dim - len(lead))
            return gradient * ratio.reshape(*lead[:-1], *inner, lead[-1], *[1] * event_dim)

        return back


@dataclass(frozen=True)
class Particles:
    """K draws from the guide for each of B data, scored under both programs.

    Attributes:
        latents: The latent sites by name, in the guide's order.
        log_likelihood: ``(K, B)``, log p(x | z) summed over observed sites.
        num_particles: K.
        num_data: B.
        scale: Subsampling scale of the data plate (full size over batch size); belongs outside any
            logsumexp.
        likelihood_scaled: Whether a handler scales the observed sites.
        num_dims: Observed elements of one datum, over all observed sites.
        discrete: Whether every observed site is discrete, so that log p(x) is a log-probability.
        mixed: Whether some of x is discrete and some is not. log p(x) is then partly a density: it
            has no bits per dimension.
        completed: Names of the latent sites that the guide lacks and the model drew from their
            priors.
        auxiliary: The sites that the guide draws and the model lacks, by name. If the guide has
            latent sites that are point masses, those are functions of the auxiliary draws, as in
            Pyro's ``AutoNormal``: the auxiliary sites then hold the density of the guide, and
            ``log_density`` of each point mass the volume of its map. Otherwise all densities are
            those given the auxiliary draws u: the weights p(x, z) / q(z | u, x) average to p(x)
            whatever the distribution of u is.

    Example:
        See :func:`draw`, which makes them.
    """

    latents: dict[str, LatentSite]
    log_likelihood: Tensor
    num_particles: int
    num_data: int
    scale: float
    likelihood_scaled: bool
    num_dims: int = 0
    discrete: bool = False
    mixed: bool = False
    completed: tuple[str, ...] = ()
    auxiliary: dict[str, LatentSite] = field(default_factory=dict)
    _bridge: Bridge | None = field(default=None, repr=False)
    _order: tuple[str, ...] = ()
    _plates: tuple[tuple[str, int, int], ...] = ()  # name, dimension and size

    @property
    def nesting(self) -> int:
        """Number of batch dimensions that the programs use, without that of the particles."""
        return max((-dim for _, dim, _ in self._plates), default=1)

    @property
    def sites(self) -> dict[str, LatentSite]:
        """Latent and auxiliary sites, in the guide's order."""
        found = {**self.latents, **self.auxiliary}
        return {name: found[name] for name in (self._order or found)}

    @property
    def random_values(self) -> dict[str, Tensor]:
        """Values of the sites that the guide draws at random, auxiliary ones included, without
        their images.

        :func:`~pyrovae.particles.score_values` gives these particles back from them.
        """
        return {name: site.value for name, site in self.sites.items() if site.is_random}

    @property
    def mapped(self) -> bool:
        """Whether latent sites are functions of auxiliary ones, which hold the guide's density."""
        return any(site._mapped for site in self.auxiliary.values())

    @cached_property
    def log_prior(self) -> Tensor:
        """``(K, B)``: log p(z), without KL scale; over auxiliary draws where :attr:`mapped`."""
        return self._sum(site.log_p for site in self.latents.values())

    @cached_property
    def log_q(self) -> Tensor:
        """``(K, B)``: log q(z | x), without KL scale; over auxiliary draws where :attr:`mapped`."""
        return self._sum(site.log_q for site in self.sites.values())

    @cached_property
    def log_auxiliary(self) -> Tensor:
        """``(K, B)``: log-density of auxiliary draws that :attr:`log_q` is conditional on; zero
        without any.
        """
        return self._sum(s.density for s in self.auxiliary.values() if not s._mapped)

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
        """Whether a handler scales any site, so that the weights are not those of the programs as
        declared.
        """
        weights = (site.kl_weight for site in self.latents.values())
        return self.likelihood_scaled or any(isinstance(w, Tensor) or w != 1.0 for w in weights)

    def doubly_reparameterized(
        self, log_p: Tensor, log_q: Tensor, shares: Tensor, ratio: Tensor | float = 1.0
    ) -> Tensor:
        r"""Surrogate for a gradient without the guide's score, from particles drawn with
        ``draws="bridged"``.

        .. math:: \sum_k a_k\, \partial_{\text{direct}} \log p_k
                  + \sum_k a_k r_k\, \frac{\partial (\log p_k - \log q_k)}{\partial z_k}
                    \frac{\partial z_k}{\partial\phi}

        With one latent site the model is differentiated once for both parts, which share everything
        but a factor at z; with several, the second part is that of :meth:`pathwise`.

        Args:
            log_p, log_q: ``(K, B)``, made of these particles' scores.
            shares: The weights a, ``(K, B)``.
            ratio: The factor r, ``(K, B)`` or a number.
        """
        shares = shares.detach()
        ratio = (ratio * torch.ones_like(shares)).detach()
        direct = shared(shares, log_p).sum()
        if self._bridge is None:
            return direct + self.pathwise(shared(shares * ratio, log_p - log_q).sum())
        self._bridge.ratio = ratio
        return direct - self.pathwise((shares * ratio * log_q).sum())

    def pathwise(self, objective: Tensor) -> Tensor:
        r"""Surrogate for the gradient of ``objective`` that flows through the draws alone.

        For particles drawn with ``draws="detached"`` and an objective f made of their scores, the
        result is a scalar whose gradient is
        :math:`\sum_k (\partial f / \partial z_k)\, \partial z_k / \partial\phi`, all layers
        included; the direct dependence of the scores on any parameter is left out. Its value has no
        meaning. Without gradients enabled it is zero.
        """
        if not objective.requires_grad:  # without gradients, or of scores that are constant
            return torch.zeros_like(objective)
        # Each draw of each site, in the order in which they were drawn.
        pairs = [
            (leaf, drawn)
            for site in self.sites.values()
            for leaf, drawn in zip(*site.runs, strict=True)
            if drawn is not leaf and drawn.requires_grad and leaf.is_floating_point()
        ]
        leaves = [leaf for leaf, _ in pairs]
        if not leaves:
            return torch.zeros_like(objective)
        found = torch.autograd.grad(objective, leaves, retain_graph=True, allow_unused=True)
        slopes = [
            torch.zeros_like(z) if g is None else g for z, g in zip(leaves, found, strict=True)
        ]
        surrogate = torch.zeros_like(objective)
        # A later layer was drawn from a distribution that the leaves of earlier layers shape: walk
        # back.
        for i, (_, drawn) in reversed(list(enumerate(pairs))):
            slope = slopes[i].detach()
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
