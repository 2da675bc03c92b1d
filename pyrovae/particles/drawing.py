"""Particles from the guide, from one run of the guide, from the prior, or from given values."""

from dataclasses import replace
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Independent, Normal
from torch import Tensor

from pyrovae.distributions.base import innermost
from pyrovae.particles.matching import data_frame
from pyrovae.particles.result import Bridge, Draws, Particles
from pyrovae.particles.running import given, is_point, run, sites_of
from pyrovae.particles.scoring import log_prob_of, over_plates, score
from pyrovae.particles.trial import Mark, runs_separately
from pyrovae.programs import Program


def draw(
    model: Program,
    guide: Program,
    num_particles: int,
    args: tuple = (),
    kwargs: dict[str, Any] | None = None,
    *,
    max_plate_nesting: int = 1,
    draws: Draws = "attached",
    complete: bool = False,
    plate: bool = True,
    values: dict[str, Tensor] | None = None,
) -> Particles:
    """Draw ``num_particles`` from the guide for every datum and score them under model and guide.

    Args:
        model, guide: Pyro programs whose data plate is the right-most batch dimension.
        num_particles: K; an outermost plate of that size vectorises both programs. Where a program
            fails under this plate and works without it, both run once for each particle, here and
            in later calls.
        args, kwargs: Arguments of both programs.
        max_plate_nesting: Number of batch dimensions that the programs use themselves.
        draws: ``"attached"``: gradients of the scores flow through the draws to the guide.
            ``"detached"``: each draw is scored as a leaf tensor, for :meth:`Particles.pathwise`.
            ``"bridged"``: detached, and prepared for :meth:`Particles.doubly_reparameterized`.
        complete: Draw latent sites that the guide lacks from their priors, in place of refusing
            them.
        plate: False runs both programs once for each particle from the start, with nothing added in
            front.
        values: Of some sites, ``(K, ..., B, *event)``, in place of draws.

    Raises:
        ValueError: If a site lies outside the data plate, is latent in one program only, is scaled
            in one program only, or if the programs nest more plates than ``max_plate_nesting``.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian()  # its guide is the exact posterior
        >>> x = oracle.sample(4)
        >>> particles = draw(oracle.model, oracle.guide, 10, (x,))
        >>> particles.log_weights.shape
        torch.Size([10, 4])
        >>> bool(particles.log_weights.allclose(oracle.log_prob(x)))  # p(x, z) / q(z | x) = p(x)
        True
    """
    kwargs = kwargs or {}
    plate = plate and not runs_separately(model)
    options: dict[str, Any] = {"max_plate_nesting": max_plate_nesting, "complete": complete}
    detach = draws != "attached"

    def trace_both(plate: bool) -> tuple[Any, Any, Bridge | None]:
        common: Any = (num_particles, args, kwargs)
        how: dict[str, Any] = {"max_plate_nesting": max_plate_nesting}
        known = None if values is None else given(values)
        trace = run(guide, *common, trace=known, detach=detach, plate=plate, role="guide", **how)
        bridge, source = _bridge(trace) if draws == "bridged" else (None, trace)
        separate = any("raw" in site for site in sites_of(trace, observed=False).values())
        how["plate"] = plate and not separate
        return trace, run(model, *common, trace=source, role="model", **how), bridge

    mark = Mark()
    trace, replayed, bridge = trace_both(plate)
    if plate and runs_separately(model):  # found just now; the guide takes the same way
        mark.undo()
        trace, replayed, bridge = trace_both(False)
    particles = score(model, trace, num_particles, args, kwargs, model_trace=replayed, **options)
    return particles if bridge is None else replace(particles, _bridge=bridge)


def _bridge(trace: Any) -> tuple[Bridge | None, Any]:
    """A bridge for the guide's one latent draw, and the trace with the values beyond it; none for
    several draws.
    """
    sites = sites_of(trace, observed=False)
    ((name, site), *others) = sites.items() if sites else ((None, {}),)
    if (
        name is None
        or others
        or is_point(site["fn"])
        or site["infer"].get("is_auxiliary")
        or not site.get("attached", site["value"].detach()).requires_grad
    ):
        return None, trace
    together = "raw" not in site
    values = (site["attached"],) if together else site["drawn"]
    bridge = Bridge(values, len(site["fn"].event_shape), together=together)
    beyond = trace.copy()
    changed = {"value": bridge.values[0]} if together else {"raw": bridge.values}
    beyond.nodes[name] = {**site, **changed}
    return bridge, beyond


def encode(guide: Program, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
    """Trace of the guide, run once on a batch without particles, for :func:`draw_encoded`.

    ``None`` if the guide has not exactly one latent site: its later distributions depend on earlier
    draws, so each particle needs a run of its own, as :func:`draw` does it.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian()  # its guide is the exact posterior
        >>> x = oracle.sample(4)
        >>> name, z, log_q = draw_latent(encode(oracle.guide, (x,)), num_particles=10)
        >>> name, z.shape, bool(log_q.allclose(oracle.posterior(x).log_prob(z)))
        ('z', torch.Size([10, 4, 2]), True)
    """
    trace = poutine.trace(guide).get_trace(*args, **(kwargs or {}))
    return trace if len(sites_of(trace, observed=False)) == 1 else None


def draw_encoded(
    model: Program,
    encoded: Any,
    num_particles: int,
    args: tuple = (),
    kwargs: dict[str, Any] | None = None,
    *,
    max_plate_nesting: int = 1,
) -> Particles:
    """As :func:`draw`, from the distribution that one run of the guide gave (:func:`encode`)."""
    site = draw_site(encoded, num_particles, max_plate_nesting)
    trace = encoded.copy()
    trace.nodes[site["name"]] = site
    return score(
        model, trace, num_particles, args, kwargs or {}, max_plate_nesting=max_plate_nesting
    )


def draw_latent(
    encoded: Any, num_particles: int, *, max_plate_nesting: int = 1
) -> tuple[str, Tensor, Tensor]:
    """The draw of :func:`draw_encoded` without the model: name, value ``(K, ..., B, *event)``, log
    q ``(K, B)``.
    """
    site = draw_site(encoded, num_particles, max_plate_nesting)
    return site["name"], site["value"], over_plates(log_prob_of(site))


def encoded_normal(encoded: Any) -> tuple[str, Tensor, Tensor, int] | None:
    """Name, mean, scale ``(..., B, *event)`` and event dimensions of an encoded guide that is a
    plain normal.
    """
    ((name, site),) = sites_of(encoded, observed=False).items()
    fn = site["fn"]
    base = innermost(fn, Independent)
    if type(base) is not Normal or site["mask"] is not None:
        return None
    return name, base.loc, base.scale, len(fn.event_shape)


def draw_site(encoded: Any, num_particles: int, max_plate_nesting: int) -> dict[str, Any]:
    ((_, site),) = sites_of(encoded, observed=False).items()
    fn = site["fn"]
    # A fresh copy: some flows remember each draw in their distribution for as long as it lives.
    fn = fn.expand(fn.batch_shape)
    singleton = (1,) * (max_plate_nesting - len(fn.batch_shape))
    return {**site, "fn": fn, "value": fn(torch.Size((num_particles, *singleton)))}


def draw_prior(
    model: Program,
    num_particles: int,
    args: tuple = (),
    kwargs: dict[str, Any] | None = None,
    *,
    max_plate_nesting: int = 1,
) -> Particles:
    """Draw from the model's own latent sites: ``log_q`` is ``log_prior``, and the weights are the
    likelihoods.
    """
    kwargs = kwargs or {}
    nesting: dict[str, Any] = {"max_plate_nesting": max_plate_nesting}
    trace = run(model, num_particles, args, kwargs, **nesting, role="model")
    return score(model, trace, num_particles, args, kwargs, **nesting, model_trace=trace)


def score_values(
    model: Program,
    guide: Program | None,
    values: dict[str, Tensor],
    args: tuple = (),
    kwargs: dict[str, Any] | None = None,
    *,
    encoded: Any = None,
    max_plate_nesting: int = 1,
) -> Particles:
    """Score given latent values, ``(K, B, *event)`` each, instead of drawing them; gradients flow
    to the values.

    Args:
        model, guide: The two programs; without a guide, ``log_q`` is ``log_prior``.
        encoded: What :func:`encode` gave for these arguments, to save a run of the guide.

    Raises:
        ValueError: If the guide computes one of these values from auxiliary draws.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian()  # its guide is the exact posterior
        >>> x = oracle.sample(4)
        >>> values = {"z": torch.zeros(1, 4, 2, dtype=x.dtype)}
        >>> particles = score_values(oracle.model, oracle.guide, values, (x,))
        >>> bool(particles.log_weights.allclose(oracle.log_prob(x)))
        True
    """
    kwargs = kwargs or {}
    num_particles = next(iter(values.values())).shape[0]
    if encoded is not None:
        trace = encoded.copy()
        for name, value in values.items():
            trace.nodes[name] = {**trace.nodes[name], "value": value}
    else:
        program, role = (model, "model") if guide is None else (guide, "guide")
        trace = run(
            program,
            num_particles,
            args,
            kwargs,
            max_plate_nesting=max_plate_nesting,
            trace=given(values),
            role=role,
        )
    particles = score(
        model,
        trace,
        num_particles,
        args,
        kwargs,
        max_plate_nesting=max_plate_nesting,
        model_trace=trace if guide is None and encoded is None else None,
    )
    images = set(values) - set(particles.random_values)
    if images:
        raise ValueError(
            f"The guide computes {sorted(images)} from its auxiliary sites "
            f"{list(particles.auxiliary)}, so it has no density at other values of them. Give "
            "values of the auxiliary sites."
        )
    return particles


def guide_log_prob(
    guide: Program,
    values: dict[str, Tensor],
    args: tuple = (),
    kwargs: dict[str, Any] | None = None,
    *,
    max_plate_nesting: int = 1,
) -> Tensor:
    """``(K, B)``: log q(z | x) of the guide alone, all sites together, at values
    ``(K, ..., B, *event)`` of each.

    Raises:
        ValueError: If the guide has further sites, such as auxiliary ones.
    """
    num_particles = next(iter(values.values())).shape[0]
    trace = run(
        guide,
        num_particles,
        args,
        kwargs or {},
        max_plate_nesting=max_plate_nesting,
        trace=given(values),
        role="guide",
    )
    sites = sites_of(trace, observed=False)
    if set(sites) != set(values):
        raise ValueError(
            f"The guide has the sites {list(sites)}, but there are values of {list(values)}."
        )
    total: Any = 0.0
    for site in sites.values():
        log_q = over_plates(log_prob_of(site))
        total = total + log_q.expand(num_particles, data_frame(site).size)
    return total
