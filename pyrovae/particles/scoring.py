"""Trace the model against the guide's trace, check that the two fit, and score both."""

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from pyro.distributions.util import scale_and_mask
from pyro.infer.util import is_validation_enabled
from torch import Tensor
from torch.distributions import biject_to

from pyrovae.particles.matching import (
    check_event,
    check_factors,
    check_names,
    check_scale,
    data_plate,
    handler_scale,
    per_datum,
)
from pyrovae.particles.result import Particles
from pyrovae.particles.running import PARTICLE_PLATE, is_point, run, sites_of
from pyrovae.particles.site import LatentSite
from pyrovae.programs import Program


def score(
    model: Program,
    guide_trace: Any,
    num_particles: int,
    args: tuple,
    kwargs: dict[str, Any],
    *,
    max_plate_nesting: int = 1,
    model_trace: Any = None,
    complete: bool = False,
) -> Particles:
    """Replay the model against a guide trace of K particles (if not done yet), and score both.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian()  # its guide is the exact posterior
        >>> x = oracle.sample(4)
        >>> from pyro import poutine
        >>> trace = poutine.trace(oracle.guide).get_trace(x)
        >>> particles = score(oracle.model, trace, 1, (x,), {})
        >>> bool(particles.log_weights.allclose(oracle.log_prob(x)))
        True
    """
    if model_trace is None:
        nesting = max_plate_nesting
        model_trace = replay(model, guide_trace, num_particles, args, kwargs, nesting)
    guide_sites = sites_of(guide_trace, observed=False)
    model_sites = sites_of(model_trace, observed=False)
    observed = sites_of(model_trace, observed=True)
    completed = [name for name in model_sites if complete and name not in guide_sites]
    guide_sites |= {name: model_sites[name] for name in completed}
    check_factors(sites_of(guide_trace, observed=True))
    check_names(guide_sites, model_sites, observed)
    everything = (*guide_sites.values(), *model_sites.values(), *observed.values())
    num_data, full_size = data_plate(everything)
    plate_scale = full_size / num_data if num_data else 1.0

    def reduce(log_prob: Tensor) -> Tensor:
        return over_plates(log_prob).expand(num_particles, num_data)

    latents, auxiliary = _latent_sites(guide_sites, model_sites, plate_scale, reduce)
    log_likelihood, likelihood_scaled = _score_observed(observed, plate_scale, reduce)
    kinds = [is_discrete(site["fn"]) for site in observed.values()]
    return Particles(
        latents=latents,
        log_likelihood=log_likelihood,
        num_particles=num_particles,
        num_data=num_data,
        scale=plate_scale,
        likelihood_scaled=likelihood_scaled,
        num_dims=sum(_numel(site) for site in observed.values()) // max(num_data, 1),
        discrete=all(kinds),
        mixed=len({*kinds}) > 1 or any(_is_mixed(site["fn"]) for site in observed.values()),
        completed=tuple(completed),
        auxiliary=auxiliary,
        _order=tuple(guide_sites),
        _plates=_plates(everything),
    )


def over_plates(log_prob: Tensor) -> Tensor:
    """``(K, ..., B)`` summed over the plates between particles and data."""
    return log_prob.sum(tuple(range(1, log_prob.dim() - 1))) if log_prob.dim() > 2 else log_prob


def replay(model, guide_trace, num_particles, args, kwargs, max_plate_nesting, plate=True):
    """Trace of the model at the latent values of a guide's trace."""
    return run(
        model,
        num_particles,
        args,
        kwargs,
        max_plate_nesting=max_plate_nesting,
        trace=guide_trace,
        plate=plate,
        role="model",
    )


def _latent_sites(
    guide_sites: dict[str, Any],
    model_sites: dict[str, Any],
    plate_scale: float,
    reduce: Callable[[Tensor], Tensor],
) -> tuple[dict[str, LatentSite], dict[str, LatentSite]]:
    """The latent sites of both programs, and the auxiliary ones of the guide."""
    latents: dict[str, LatentSite] = {}
    auxiliary: dict[str, LatentSite] = {}
    order = list(model_sites)
    mapped = _is_map(guide_sites, model_sites)
    for name, site in guide_sites.items():
        in_model: Any = model_sites.get(name)
        if in_model is not None:
            check_scale(name, in_model, site, plate_scale)
        counted = site if in_model is None else in_model
        drawn = site.get("attached", site["value"])
        runs = (site["raw"], site.get("drawn", site["raw"])) if "raw" in site else None
        (auxiliary if in_model is None else latents)[name] = LatentSite(
            name=name,
            value=site["value"],
            drawn=drawn,
            prior=None if in_model is None else in_model["fn"],
            posterior=site["fn"],
            kl_weight=per_datum(handler_scale(counted, plate_scale), counted),
            in_order=in_model is not None and set(order[: order.index(name)]) <= set(latents),
            _reduce=reduce,
            _masks=(counted["mask"], site["mask"]),
            _seen=None if in_model is None else in_model["value"],
            _mapped=mapped,
            _runs=runs,
        )
    if is_validation_enabled():
        for latent in latents.values():
            check_event(latent)
    return latents, auxiliary


def _is_map(guide_sites: dict[str, Any], model_sites: dict[str, Any]) -> bool:
    """Whether point masses of the guide are functions of its auxiliary draws, which then hold the
    density.

    Raises:
        ValueError: If there are more or fewer numbers in the auxiliary draws than in their images.
    """
    auxiliary = {name: s for name, s in guide_sites.items() if name not in model_sites}
    points = [n for n, site in guide_sites.items() if n in model_sites and is_point(site["fn"])]
    if not auxiliary or not points:
        return False
    random = sum(_size(site["value"].shape, site) for site in auxiliary.values())
    images = 0
    for name in points:
        shape = guide_sites[name]["value"].shape
        if not is_discrete(model_sites[name]["fn"]):
            with suppress(AttributeError, NotImplementedError):
                shape = biject_to(model_sites[name]["fn"].support).inverse_shape(shape)
        images += _size(shape, guide_sites[name])
    if random != images:
        raise ValueError(
            f"The guide maps the auxiliary sites {list(auxiliary)}, of {random} numbers, to the "
            f"point masses {points}, of {images}: that is no change of variables, so the density "
            "of the guide is unknown. Map each auxiliary number to one latent number, or draw the "
            "latent sites from distributions with a density."
        )
    return True


def _size(shape: Any, site: Any) -> int:
    """Numbers of all data in a value of one particle."""
    frames = {f.name: f.size for f in site["cond_indep_stack"] if f.vectorized}
    batch = math.prod(size for name, size in frames.items() if name != PARTICLE_PLATE)
    event = len(site["fn"].event_shape)
    return batch * math.prod(shape[len(shape) - event :] if event else ())


def _score_observed(
    observed: dict[str, Any], plate_scale: float, reduce: Callable[[Tensor], Tensor]
) -> tuple[Any, bool]:
    """log p(x | z), ``(K, B)``, and whether a handler scales it."""
    log_likelihood: Any = 0.0
    scaled = False
    for site in observed.values():
        scale: Any = handler_scale(site, plate_scale)
        unscaled = isinstance(scale, float) and scale == 1.0
        scaled |= not unscaled
        log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
        log_likelihood = log_likelihood + reduce(
            scale_and_mask(log_prob, scale=1.0 if unscaled else scale, mask=site["mask"])
        )
    return log_likelihood, scaled


def _plates(sites: Iterable[Any]) -> tuple[tuple[str, int, int], ...]:
    """Name, dimension and size of every plate of the programs."""
    frames = {f for site in sites for f in site["cond_indep_stack"] if f.vectorized}
    return tuple((f.name, f.dim, f.size) for f in frames if f.name != PARTICLE_PLATE)


def _numel(site: Any) -> int:
    """Elements of an observed site for all data, one particle."""
    frames = [
        frame.size
        for frame in site["cond_indep_stack"]
        if frame.vectorized and frame.name != PARTICLE_PLATE
    ]
    return math.prod([*site["fn"].event_shape, *frames])


def is_discrete(distribution: Any) -> bool:
    """Whether a distribution is on discrete values, as far as it says."""
    try:
        return bool(distribution.support.is_discrete)
    except (AttributeError, NotImplementedError):
        return False


def _is_mixed(distribution: Any) -> bool:
    """Whether some elements of a distribution's support are discrete and some are not."""
    try:
        support = distribution.support
    except (AttributeError, NotImplementedError):
        return False
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return getattr(support, "is_mixed", False)
