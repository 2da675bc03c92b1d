"""Discrete latent sites summed out, so that the densities are those of the other sites alone."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyrovae.distributions.base import double
from pyrovae.particles.drawing import draw_site
from pyrovae.particles.result import Particles
from pyrovae.particles.running import given, particle_plate, run, run_errors, sites_of
from pyrovae.particles.scoring import log_prob_of
from pyrovae.particles.site import LatentSite
from pyrovae.particles.supports import SummedSites
from pyrovae.programs import Program


@dataclass(frozen=True)
class SummedParticles(Particles):
    """Particles of the sites that were not summed out; log-densities are sums over the values of
    the others.
    """

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
    """As :func:`~pyrovae.particles.draw`, with discrete sites summed out; without a guide, draws
    are the prior's.

    All sites are drawn as ever, and those to be summed out are forgotten: what remains has the
    density that :func:`score_values_summed` finds.
    """
    kwargs = kwargs or {}
    if encoded is None:
        program, role = (model, "model") if guide is None else (guide, "guide")
        nesting = max_plate_nesting
        trace = run(program, num_particles, args, kwargs, max_plate_nesting=nesting, role=role)
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
    r"""Score values ``(K, B, *event)`` of the sites that are not summed out; gradients flow to
    them.

    .. math:: p(x, z) = \sum_d p(x, z, d), \qquad q(z \mid x) = \sum_d q(z, d \mid x)

    The second holds wherever the guide draws d: if it draws z given d, this is the density of the
    mixture.

    Args:
        model, guide: The two programs; without a guide, ``log_q`` is ``log_prior``. What the guide
            lacks is summed in the model alone.
        summed: The sites d.
        num_particles, num_data: K and B.
        encoded: What :func:`~pyrovae.particles.encode` gave for these arguments, to save runs of
            the guide.
    """
    shape = _Shape(num_particles, num_data, max_plate_nesting, summed.wide)
    parts: dict[str, list[Tensor]] = {"prior": [], "joint": [], "guide": []}
    known: dict[str, Any] = {}
    if encoded is not None and set(sites_of(encoded, observed=False)) <= set(values):
        known = {
            name: {**site, "value": values[name]}
            for name, site in sites_of(encoded, observed=False).items()
        }
        parts["guide"].append(double(replace(shape, wide=False).total(known, 1)[0]))
    programs = {"model": model}
    if guide is not None and values and not known:
        programs["guide"] = guide
    for piece in summed.pieces():
        found, laws = shape.score(programs, piece, values, args, kwargs or {})
        for name, log_prob in found.items():
            parts[name].append(double(log_prob).logsumexp(0))
        dtype = found["joint"].dtype
    sums = {name: torch.stack(part).logsumexp(0) for name, part in parts.items() if part}
    if "guide" in programs:
        # Each value of a site that the guide lacks has counted the guide's density once.
        lacking = [count for name, count in summed.counts.items() if name not in laws["guide"]]
        sums["guide"] = sums["guide"] - math.log(math.prod(lacking))
    elif guide is not None and not known:  # nothing was drawn, and q sums to one
        sums["guide"] = torch.zeros_like(sums["joint"])
    sums.setdefault("guide", sums["prior"])
    sums = {name: total.to(dtype) for name, total in sums.items()} | {
        "likelihood": _ratio(sums["joint"], sums["prior"]).to(dtype)
    }
    drawn_from = {name: site["fn"] for name, site in known.items()} | laws.get("guide", {})
    return _summed(values, sums, laws["model"], laws["model"] | drawn_from, shape)


def _ratio(joint: Tensor, prior: Tensor) -> Tensor:
    """log p(x, z) - log p(z), also where p(z) is zero."""
    return torch.where(prior == -math.inf, joint, joint - prior)


def _summed(
    values: dict[str, Tensor],
    sums: dict[str, Tensor],
    priors: dict[str, Any],
    posteriors: dict[str, Any],
    shape: "_Shape",
) -> SummedParticles:
    return SummedParticles(
        latents={
            name: _latent(name, value, priors[name], posteriors[name])
            for name, value in values.items()
        },
        log_likelihood=sums["likelihood"],
        num_particles=shape.num_particles,
        num_data=shape.num_data,
        scale=1.0,
        likelihood_scaled=False,
        _sums=sums,
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
        """``(num, K, B)`` log-densities for some of the values, and the distributions of the
        programs' latent sites.
        """
        num = len(next(iter(piece.values())))
        laid = given(self.lay_out(piece, values, num))
        found, laws = {}, {}
        for name, program in programs.items():
            trace = self._run(program, laid, num, args, kwargs, name)
            latent = sites_of(trace, observed=False)
            laws[name] = {site: node["fn"] for site, node in latent.items()}
            if name == "guide":
                found["guide"] = self.total(latent, num)
            else:
                found["prior"] = self.total(latent, num)
                found["joint"] = found["prior"] + self.total(sites_of(trace, observed=True), num)
        return found, laws

    def _run(
        self, program: Program, laid: Any, num: int, args: tuple, kwargs: dict[str, Any], role: str
    ) -> Any:
        if not self.wide:
            options = {"max_plate_nesting": self.nesting, "trace": laid, "role": role}
            return run(program, self.num_particles * num, args, kwargs, **options)
        plated = particle_plate(self.num_particles, self.nesting)(program)
        tracer = poutine.trace(poutine.replay(plated, trace=laid))
        with run_errors(self.nesting, role, tracer):
            return tracer.get_trace(*args, **kwargs)

    def lay_out(
        self, piece: dict[str, Tensor], values: dict[str, Tensor], num: int
    ) -> dict[str, Tensor]:
        """Every latent site's value for the programs: the ``num`` summed ones with those of the
        other sites.
        """
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
        log_prob = log_prob_of(site)
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
