"""Discrete latent sites whose values can all be listed."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import MaskedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Independent

from pyrovae.distributions.base import innermost
from pyrovae.particles.result import Particles
from pyrovae.particles.running import particle_plate, run_errors, sites_of
from pyrovae.particles.scoring import is_discrete
from pyrovae.particles.separate import Separate
from pyrovae.programs import Program

MOST_VALUES = 2**16
"""Joint values that are listed at all."""


@dataclass(frozen=True)
class SummedSites:
    """Discrete latent sites to sum out, with the M joint values of all of them.

    Attributes:
        values: By site, ``(M, 1, *inner, 1, *event)``: the ones stand for particles and data,
            ``inner`` for the plates between.
        counts: By site, how many values it has by itself; M is their product.
        wide: Whether the programs are handed the values along a dimension of their own, left of the
            particles, which asks of them to broadcast; else each value makes further particles.
        chunk: How many of the M are scored at once.
    """

    values: dict[str, Tensor]
    counts: dict[str, int]
    wide: bool = False
    chunk: int = MOST_VALUES

    @classmethod
    def product(cls, supports: dict[str, Tensor]) -> "SummedSites":
        """Every value of each site, as :func:`find_supports` lists them, with every one of the
        others.
        """
        counts = {name: len(support) for name, support in supports.items()}
        device = next(iter(supports.values())).device
        columns = _product(list(counts.values()), device).unbind(1)
        values = {
            name: support[column]
            for (name, support), column in zip(supports.items(), columns, strict=True)
        }
        return cls(values, counts)

    @property
    def num_values(self) -> int:
        """M."""
        return len(next(iter(self.values.values())))

    def first(self, num: int) -> "SummedSites":
        """The first so many values only, for trials."""
        return replace(self, values={name: value[:num] for name, value in self.values.items()})

    def pieces(self) -> Iterator[dict[str, Tensor]]:
        """The values, ``chunk`` after ``chunk``."""
        for start in range(0, self.num_values, self.chunk):
            yield {name: value[start : start + self.chunk] for name, value in self.values.items()}


def find_supports(particles: Particles) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All values ``(S, 1, *inner, 1, *event)`` of each discrete site that has few; and why others
    cannot be summed.

    Args:
        particles: As :func:`~pyrovae.particles.draw` gives them for one particle.
    """
    found, reasons = {}, {}
    for name, site in particles.latents.items():
        if not is_discrete(site.prior):
            continue
        try:
            if particles.auxiliary:
                raise _Unlistable(f"the guide has auxiliary sites {list(particles.auxiliary)}")
            if any(mask is not None for mask in site._masks):
                raise _Unlistable("it is masked")
            values = _all_values(site.prior)
            own = values if site.posterior is site.prior else _all_values(site.posterior)
            if values.shape != own.shape or not torch.equal(values, own.to(values)):
                raise _Unlistable("the guide lists other values than the model")
            found[name] = values
        except _Unlistable as reason:
            reasons[name] = str(reason)
    return found, reasons


def every_value(
    guide: Program,
    num_particles: int,
    args: tuple = (),
    kwargs: dict[str, Any] | None = None,
    *,
    max_plate_nesting: int = 1,
) -> dict[str, Tensor]:
    """Each joint value of a guide's discrete sites for each of K particles, by site: ``(M * K,
    *inner, B, *event)``.

    The guide runs once to show its sites. This draws no random numbers: other sites stand at their
    means, which say nothing of the values of a discrete one.

    Raises:
        ValueError: If the values of a discrete site cannot be listed, or there are too many.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.DiscreteMixture()
        >>> every_value(oracle.guide, 2, (oracle.sample(3),))["c"].shape  # twice, for three data
        torch.Size([8, 3])
    """
    floating = (arg for arg in args if isinstance(arg, Tensor) and arg.is_floating_point())
    still = _Still(next(floating, torch.zeros(())))(particle_plate(1, max_plate_nesting)(guide))
    tracer = poutine.trace(still)
    with torch.no_grad(), run_errors(max_plate_nesting, "guide", tracer):
        sites = sites_of(tracer.get_trace(*args, **(kwargs or {})), observed=False)
    discrete = {name: site["fn"] for name, site in sites.items() if is_discrete(site["fn"])}
    if not discrete:
        return {}
    supports = {}
    for name, fn in discrete.items():
        try:
            if sites[name]["mask"] is not None:
                raise _Unlistable("it is masked")
            supports[name] = _all_values(fn)
        except _Unlistable as why:
            raise ValueError(
                f"Site '{name}' cannot be summed: {why}. Use estimators.ELBO, which draws it."
            ) from None
    if (num := math.prod(map(len, supports.values()))) > MOST_VALUES:
        raise ValueError(
            f"The sites {list(supports)} have {num} joint values; at most {MOST_VALUES} are summed."
        )
    found = {}
    for name, values in SummedSites.product(supports).values.items():
        fn = discrete[name]
        shape = num, num_particles, *fn.batch_shape[1:], *fn.event_shape
        found[name] = values.expand(shape).flatten(0, 1)
    return found


class _Still(Messenger):
    """Give every latent site a value without drawing it: the first that is listed, the mean, or
    zeros that are ``like`` a tensor.
    """

    def __init__(self, like: Tensor):
        super().__init__()
        self.like = like

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or msg["value"] is not None:
            return
        fn, msg["done"] = msg["fn"], True
        if site_is_subsample(msg):
            msg["value"] = torch.arange(fn.subsample_size or fn.size, device=fn.device)
            return
        try:
            listed = innermost(fn).enumerate_support() if is_discrete(fn) else [fn.mean]
            msg["value"] = listed[0].expand(fn.shape())
        except NotImplementedError:
            msg["value"] = self.like.new_zeros(fn.shape())


class _Unlistable(Exception):
    """Why a site's values cannot be listed."""


def _all_values(distribution: Any) -> Tensor:
    """``(S, 1, *inner, 1, *event)`` for a distribution of batch shape ``(1, *inner, B)``."""
    if isinstance(distribution, Separate):
        distribution = distribution.as_one()
    inner, base = distribution.batch_shape[1:-1], innermost(distribution, Independent)
    if isinstance(base, MaskedDistribution):
        raise _Unlistable("it is masked")
    if getattr(base, "num_values", 0) > MOST_VALUES:
        raise _Unlistable(f"it has {base.num_values} values")
    try:
        listed = base.enumerate_support(expand=False)
    except (NotImplementedError, ValueError, RuntimeError):
        raise _Unlistable("its values are not finitely many, and the same for all data") from None
    event = distribution.event_shape
    listed = listed.reshape(-1, *base.event_shape)
    elements = [*inner, *event[: len(event) - len(base.event_shape)]]
    num = len(listed) ** math.prod(elements)
    if num > MOST_VALUES:
        raise _Unlistable(f"it has {len(listed)} ** {math.prod(elements)} joint values")
    places = _product([len(listed)] * math.prod(elements), listed.device)
    return listed[places].reshape(num, 1, *inner, 1, *event)


def _product(counts: list[int], device: torch.device) -> Tensor:
    """``(prod(counts), len(counts))``: all combinations of places."""
    total = math.prod(counts)
    places, repeat = [], total
    for count in counts:
        repeat //= count
        places.append(torch.arange(total, device=device) // repeat % count)
    return torch.stack(places, 1)
