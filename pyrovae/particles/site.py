"""One latent site: its value, its two distributions, and their scores."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from pyro.distributions import MaskedDistribution
from pyro.distributions.util import scale_and_mask, sum_rightmost
from torch import Tensor
from torch.distributions import constraints, kl_divergence

from pyrovae.particles.running import is_point
from pyrovae.particles.separate import WRAPPERS, Separate, by_element, stack


@dataclass(frozen=True)
class LatentSite:
    """One latent site: its value, its two distributions, and their scores, each ``(K, B)``.

    An auxiliary site is drawn by the guide alone; see :attr:`Particles.auxiliary` for how it
    counts.

    Attributes:
        name: Name of the site.
        value: ``(K, B, *event)``; a leaf tensor where the particles were drawn with
            ``draws="detached"``.
        drawn: The same numbers, still attached to the guide's parameters.
        prior: Its distribution in the model, given the sites before it; None for an auxiliary site.
        posterior: Its distribution in the guide, given the sites before it.
        kl_weight: Product of the scales put on the site, beside the data plate's own; 1.0 without
            any.
        in_order: Whether every site before it in the model is before it in the guide too. If not,
            its prior may depend on sites drawn *given* it, and KL(posterior || prior) is no term of
            the bound.
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
    _mapped: bool = field(default=False, repr=False)  # auxiliary sites hold the latents' density
    _runs: tuple[Any, Any] | None = field(default=None, repr=False)  # leaves and draws of each run

    @cached_property
    def log_p(self) -> Tensor:
        """``(K, B)``: log-density under the model, as a density over what is drawn at random.

        For a point mass that maps auxiliary draws, this includes the volume of the map.
        """
        scores = self._prior_score if self.prior is not None else torch.zeros_like(self.density)
        return scores - self.density if self._is_map else scores

    @cached_property
    def log_q(self) -> Tensor:
        """``(K, B)``: log-density under the guide; zero where the density is
        that of other sites.
        """
        if self._is_map or (self.prior is None and not self._mapped):
            return torch.zeros_like(self.density)
        return self.density

    @cached_property
    def density(self) -> Tensor:
        """``(K, B)``: log-density of the guide's distribution at the value."""
        return self._reduce(
            scale_and_mask(self.posterior.log_prob(self.value), mask=self._masks[1])
        )

    @cached_property
    def _prior_score(self) -> Tensor:
        value = self.value if self._seen is None else self._seen
        return self._reduce(scale_and_mask(self.prior.log_prob(value), mask=self._masks[0]))

    @property
    def _is_map(self) -> bool:
        return self._mapped and self.prior is not None and is_point(self.posterior)

    @property
    def masks(self) -> tuple[list[Tensor], list[Tensor]]:
        """What hides elements of the site in the model and in the guide, by handlers or within its
        distributions.
        """
        left, right = (
            [torch.as_tensor(m) for m in (outer, *_within(fn)) if m is not None and m is not True]
            for outer, fn in zip(self._masks, (self.prior, self.posterior), strict=True)
        )
        return left, right

    @property
    def masks_agree(self) -> bool:
        """Whether both programs count the same elements of the site."""
        left, right = self.masks
        return len(left) == len(right) and all(map(_equal, left, right))

    @property
    def is_random(self) -> bool:
        """Whether the site is drawn, and not a function of auxiliary draws."""
        return not self._is_map

    @property
    def score(self) -> Tensor:
        """``(K, B)``: log q whose derivative is the score of the draw, without the weights of
        :meth:`by_element`.
        """
        return self.density if self._whole is None else self._whole.density

    @property
    def reparameterized(self) -> bool:
        """Whether gradients flow from the value to the guide."""
        return bool(getattr(self.posterior, "has_rsample", False))

    @property
    def runs(self) -> tuple[Any, Any]:
        """Leaf tensors that the scores depend on, and the draws that they stand for: one, or one
        for each particle.
        """
        return self._runs or ((self.value,), (self.drawn,))

    def by_element(self, weight: Tensor | float = 1.0) -> "LatentSite":
        """The site with each element of its event scored by itself, times ``weight``, before they
        are summed.

        Args:
            weight: Broadcasts to ``(*batch, *event)``.

        Raises:
            ValueError: If either distribution is not independent across elements, as a full-rank
                normal, a mixture or a flow.
        """
        dims = len(self.prior.event_shape)

        def reduce(scores: Tensor) -> Tensor:
            summed: Any = sum_rightmost(scores * weight, dims)
            return self._reduce(summed)

        return replace(
            self,
            prior=by_element(self.prior, self.name, "prior"),
            posterior=by_element(self.posterior, self.name, "posterior"),
            _reduce=reduce,
            _whole=self,
            _masks=tuple(
                m[(...,) + (None,) * dims] if isinstance(m, Tensor) else m for m in self._masks
            ),
        )

    def across_data(self) -> Tensor:
        """``(B, K, B, D)``: each datum's draws, of shape ``(K, B, D)``, under the guide's
        distribution of every datum.

        Raises:
            ValueError: As for :meth:`by_element`.
        """
        posterior = self.by_element().posterior
        if isinstance(posterior, Separate):
            pairs = zip(posterior.fns, self.value, strict=True)
            return torch.stack([fn.log_prob(value.unsqueeze(1)) for fn, value in pairs], 1)
        return posterior.log_prob(self.value.transpose(0, 1).unsqueeze(2))

    @property
    def closed_form(self) -> Tensor | None:
        """``(K, B)``: KL(posterior || prior) where it is a term of the bound and has a closed form,
        else None.
        """
        if self.prior is None:
            return None if self._mapped else torch.zeros_like(self.density)
        if is_point(self.posterior):
            return self.log_q - self.log_p
        if not self.in_order or (self._masks[0] is None) != (self._masks[1] is None):
            return None
        try:
            divergence = self._divergence()
        except NotImplementedError:
            return None
        if self._masks[0] is self._masks[1]:
            return self.reduce(divergence)
        # Each distribution has a mask. Where these differ, log q - log p of the draw stands in.
        in_model, in_guide = (torch.as_tensor(m, device=divergence.device) for m in self._masks)
        drawn = scale_and_mask(self.posterior.log_prob(self.value), mask=in_guide)
        seen = self.value if self._seen is None else self._seen
        drawn = drawn - scale_and_mask(self.prior.log_prob(seen), mask=in_model)
        divergence = scale_and_mask(divergence, mask=in_model)
        return self._reduce(torch.where(in_model == in_guide, divergence, drawn))

    def _divergence(self) -> Tensor:
        if not isinstance(self.prior, Separate) or isinstance(self.posterior, Separate):
            return kl_divergence(self.posterior, self.prior)
        # The guide ran once for all particles, the model once for each.
        pieces = []
        for particle, prior in enumerate(self.prior.fns):
            found = kl_divergence(self.posterior, prior)
            whole = len(self.posterior.batch_shape) > len(prior.batch_shape)
            pieces.append(found[particle] if whole and len(found) > 1 else found)
        return stack(pieces, self.prior.nesting - pieces[0].dim())

    def reduce(self, per_site: Tensor) -> Tensor:
        """Sum a tensor of this site's batch shape over inner plates, to ``(K, B)``, under the
        model's mask.
        """
        return self._reduce(scale_and_mask(per_site, mask=self._masks[0]))


def _within(distribution: Any) -> Iterator[Any]:
    """Masks inside a distribution."""
    while isinstance(distribution, WRAPPERS):
        if isinstance(distribution, MaskedDistribution):
            yield distribution._mask
        distribution = distribution.base_dist


def _equal(one: Tensor, other: Tensor) -> bool:
    try:
        return torch.equal(*torch.broadcast_tensors(one, other))
    except RuntimeError:  # masks of other shapes
        return False


def real_support(site: LatentSite) -> bool:
    """Whether a site's values may be any real numbers, as far as its two distributions say."""
    supports = [element_support(fn) for fn in (site.prior, site.posterior)]
    known = [support for support in supports if support is not None]
    return bool(known) and all(support is constraints.real for support in known)


def element_support(distribution: Any) -> Any:
    """The support of an element of a distribution; None if it does not say."""
    try:
        support = distribution.support
    except (AttributeError, NotImplementedError):
        return None
    while hasattr(support, "base_constraint"):  # of independent elements, or of a mixture
        support = support.base_constraint
    return support
