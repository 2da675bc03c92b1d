"""Discrete latent sites summed out, so that the densities are those of the other sites alone."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import MaskedDistribution
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import Independent

from pyrovae.particles.drawing import draw_site, trace_guide
from pyrovae.particles.result import LatentSite, Particles
from pyrovae.particles.scoring import given, is_discrete, particle_plate, plate_errors, sites_of
from pyrovae.programs import Program

MOST_VALUES = 2**16
"""Joint values that are listed at all."""


@dataclass(frozen=True)
class SummedSites:
    """Discrete latent sites to sum out, with the M joint values of all of them.

    Attributes:
        values: By site, ``(M, 1, *inner, 1, *event)``: the ones stand for particles and data, ``inner`` for the plates
            between.
        counts: By site, how many values it has by itself; M is their product.
        wide: Whether the programs are handed the values along a dimension of their own, left of the particles, which
            asks of them to broadcast; else each value makes further particles.
        chunk: How many of the M are scored at once.
    """

    values: dict[str, Tensor]
    counts: dict[str, int]
    wide: bool = False
    chunk: int = MOST_VALUES

    @classmethod
    def product(cls, supports: dict[str, Tensor]) -> "SummedSites":
        """Every value of each site, as :func:`find_supports` lists them, with every one of the others."""
        counts = {name: len(support) for name, support in supports.items()}
        columns = _product(list(counts.values())).unbind(1)
        values = {
            name: support[column.to(support.device)]
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


@dataclass(frozen=True)
class SummedParticles(Particles):
    """Particles of the sites that were not summed out; log-densities are sums over the values of the others."""

    _sums: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def log_prior(self) -> Tensor:  # type: ignore[override]
        return self._sums["prior"]

    @property
    def log_q(self) -> Tensor:  # type: ignore[override]
        return self._sums["guide"]

    @property
    def log_p(self) -> Tensor:
        return self._sums["joint"]


def find_supports(particles: Particles) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All values ``(S, 1, *inner, 1, *event)`` of each discrete site that has few; and why others cannot be summed.

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


def draw_summed(
    model: Program,
    guide: Program | None,
    num_particles: int,
    summed: SummedSites,
    args: tuple = (),
    kwargs: dict[str, Any] | None = None,
    *,
    num_data: int,
    encoded: Any = None,
    max_plate_nesting: int = 1,
) -> SummedParticles:
    """As :func:`~pyrovae.particles.draw`, with discrete sites summed out; without a guide, draws are the prior's.

    All sites are drawn as ever, and those to be summed out are forgotten: what remains has the density that
    :func:`score_values_summed` finds.
    """
    kwargs = kwargs or {}
    if encoded is None:
        program = model if guide is None else guide
        trace, _ = trace_guide(program, num_particles, args, kwargs, max_plate_nesting, False)
        drawn = sites_of(trace, observed=False)
        values = {name: site["value"] for name, site in drawn.items() if name not in summed.values}
    elif set(sites_of(encoded, observed=False)) <= set(summed.values):
        values = {}
    else:
        site = draw_site(encoded, num_particles, max_plate_nesting)
        values = {site["name"]: site["value"]}
    return score_values_summed(
        model,
        guide,
        values,
        summed,
        args,
        kwargs,
        num_particles=num_particles,
        num_data=num_data,
        encoded=encoded,
        max_plate_nesting=max_plate_nesting,
    )


def score_values_summed(
    model: Program,
    guide: Program | None,
    values: dict[str, Tensor],
    summed: SummedSites,
    args: tuple = (),
    kwargs: dict[str, Any] | None = None,
    *,
    num_particles: int,
    num_data: int,
    encoded: Any = None,
    max_plate_nesting: int = 1,
) -> SummedParticles:
    r"""Score values ``(K, B, *event)`` of the sites that are not summed out; gradients flow to them.

    .. math:: p(x, z) = \sum_d p(x, z, d), \qquad q(z \mid x) = \sum_d q(z, d \mid x)

    The second holds wherever the guide draws d: if it draws z given d, this is the density of the mixture.

    Args:
        model, guide: The two programs; without a guide, ``log_q`` is ``log_prior``. What the guide lacks is summed
            in the model alone.
        summed: The sites d.
        num_particles, num_data: K and B.
        encoded: What :func:`~pyrovae.particles.encode` gave for these arguments, to save runs of the guide.
    """
    shape = _Shape(num_particles, num_data, max_plate_nesting, summed.wide)
    parts: dict[str, list[Tensor]] = {"prior": [], "joint": [], "guide": []}
    known: dict[str, Any] = {}
    if encoded is not None and set(sites_of(encoded, observed=False)) <= set(values):
        known = {
            name: {**site, "value": values[name]}
            for name, site in sites_of(encoded, observed=False).items()
        }
        parts["guide"].append(replace(shape, wide=False).total(known, 1)[0].double())
    programs = {"model": model}
    if guide is not None and values and not known:
        programs["guide"] = guide
    for piece in summed.pieces():
        found, laws = shape.score(programs, piece, values, args, kwargs or {})
        for name, log_prob in found.items():
            parts[name].append(log_prob.double().logsumexp(0))
        dtype = found["joint"].dtype
    sums = {name: torch.stack(part).logsumexp(0) for name, part in parts.items() if part}
    if (
        "guide" in programs
    ):  # each value of a site that the guide lacks counts the guide's density once
        lacking = [count for name, count in summed.counts.items() if name not in laws["guide"]]
        sums["guide"] = sums["guide"] - math.log(math.prod(lacking))
    elif guide is not None and not known:  # nothing was drawn, and q sums to one
        sums["guide"] = torch.zeros_like(sums["joint"])
    sums.setdefault("guide", sums["prior"])
    likelihood = torch.where(
        sums["prior"] == -math.inf, sums["joint"], sums["joint"] - sums["prior"]
    )
    posteriors = (
        laws["model"] | {name: site["fn"] for name, site in known.items()} | laws.get("guide", {})
    )
    return SummedParticles(
        latents={
            name: _latent(name, value, laws["model"][name], posteriors[name])
            for name, value in values.items()
        },
        log_likelihood=likelihood.to(dtype),
        num_particles=num_particles,
        num_data=num_data,
        scale=1.0,
        likelihood_scaled=False,
        _sums={name: total.to(dtype) for name, total in sums.items()},
    )


@dataclass(frozen=True)
class _Shape:
    """Where values, particles, inner plates and data lie in a tensor."""

    num_particles: int
    num_data: int
    nesting: int
    wide: bool

    def score(
        self,
        programs: dict[str, Program],
        piece: dict[str, Tensor],
        values: dict[str, Tensor],
        args: tuple,
        kwargs: dict[str, Any],
    ) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
        """``(num, K, B)`` log-densities for some of the values, and the distributions of the programs' latent sites."""
        num = len(next(iter(piece.values())))
        laid = given(self.lay_out(piece, values, num))
        plate = particle_plate(self.num_particles * (1 if self.wide else num), self.nesting)
        found, laws = {}, {}
        for name, program in programs.items():
            with plate_errors(self.nesting):
                replayed = poutine.replay(plate(program), trace=laid)
                trace = poutine.trace(replayed).get_trace(*args, **kwargs)
            latent = sites_of(trace, observed=False)
            laws[name] = {site: node["fn"] for site, node in latent.items()}
            if name == "guide":
                found["guide"] = self.total(latent, num)
            else:
                found["prior"] = self.total(latent, num)
                found["joint"] = found["prior"] + self.total(sites_of(trace, observed=True), num)
        return found, laws

    def lay_out(
        self, piece: dict[str, Tensor], values: dict[str, Tensor], num: int
    ) -> dict[str, Tensor]:
        """Every latent site's value for the programs: the ``num`` summed ones with those of the other sites."""
        if self.wide:
            return {**values, **piece}
        laid = {
            name: value.expand(num, *value.shape).flatten(0, 1) for name, value in values.items()
        }
        for name, value in piece.items():
            shape = list(value.shape)
            shape[1], shape[1 + self.nesting] = self.num_particles, self.num_data
            laid[name] = value.expand(shape).flatten(0, 1)
        return laid

    def total(self, sites: dict[str, Any], num: int) -> Tensor:
        """``(num, K, B)``: the sites' log-densities, added up."""
        found = torch.zeros(())
        for site in sites.values():
            found = found + self._per_value(site, num)
        return found.expand(num, self.num_particles, self.num_data)

    def _per_value(self, site: Any, num: int) -> Tensor:
        log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
        log_prob = scale_and_mask(log_prob, mask=site["mask"])
        rank = self.nesting + (2 if self.wide else 1)
        log_prob = log_prob.reshape((1,) * (rank - log_prob.dim()) + log_prob.shape)
        if self.nesting > 1:
            log_prob = log_prob.sum(tuple(range(rank - self.nesting, rank - 1)))
        if self.wide:
            return log_prob
        return log_prob.expand(num * self.num_particles, self.num_data).unflatten(
            0, (num, self.num_particles)
        )


def _latent(name: str, value: Tensor, prior: Any, posterior: Any) -> LatentSite:
    def reduce(_: Tensor) -> Tensor:
        raise RuntimeError(f"Site '{name}' has no density of its own once others are summed out.")

    return LatentSite(
        name=name,
        value=value,
        drawn=value,
        prior=prior,
        posterior=posterior,
        kl_weight=1.0,
        in_order=True,
        _reduce=reduce,
        _masks=(None, None),
    )


class _Unlistable(Exception):
    """Why a site's values cannot be listed."""


def _all_values(distribution: Any) -> Tensor:
    """``(S, 1, *inner, 1, *event)`` for a distribution of batch shape ``(1, *inner, B)``."""
    inner, base = distribution.batch_shape[1:-1], distribution
    while isinstance(base, Independent):
        base = base.base_dist
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
    places = _product([len(listed)] * math.prod(elements))
    return listed[places.to(listed.device)].reshape(num, 1, *inner, 1, *event)


def _product(counts: list[int]) -> Tensor:
    """``(prod(counts), len(counts))``: all combinations of places."""
    total = math.prod(counts)
    places, repeat = [], total
    for count in counts:
        repeat //= count
        places.append(torch.arange(total) // repeat % count)
    return torch.stack(places, 1)
