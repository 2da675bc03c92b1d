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
from pyrovae.particles.site import LatentSite, element_support
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
        how: dict[str, Any] = {"max_plate_nesting": max_plate_nesting, "role": "model"}
        model_trace = run(model, num_particles, args, kwargs, trace=guide_trace, **how)
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
    num_elements = sum(_size(site["fn"].event_shape, site) for site in observed.values())
    return Particles(
        latents=latents,
        log_likelihood=log_likelihood,
        num_particles=num_particles,
        num_data=num_data,
        scale=plate_scale,
        likelihood_scaled=likelihood_scaled,
        num_dims=num_elements // max(num_data, 1),
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


def log_prob_of(site: Any, scale: Any = 1.0) -> Tensor:
    """The log-density of a site at its value, where no mask hides it."""
    log_prob: Any = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    return scale_and_mask(log_prob, scale=scale, mask=site["mask"])


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
    """Numbers of all data in a value of this shape, of one particle."""
    event = len(site["fn"].event_shape)
    sizes = [frame.size for frame in _frames(site)]
    return math.prod([*sizes, *shape[len(shape) - event :]])


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
        log_prob = log_prob_of(site, 1.0 if unscaled else scale)
        log_likelihood = log_likelihood + reduce(log_prob)
    return log_likelihood, scaled


def _plates(sites: Iterable[Any]) -> tuple[tuple[str, int, int], ...]:
    """Name, dimension and size of every plate of the programs."""
    frames = {frame for site in sites for frame in _frames(site)}
    return tuple((f.name, f.dim, f.size) for f in frames)


def _frames(site: Any) -> list[Any]:
    """The plates that the program itself puts a site into."""
    frames = site["cond_indep_stack"]
    return [f for f in frames if f.vectorized and f.name != PARTICLE_PLATE]


def is_discrete(distribution: Any) -> bool:
    """Whether a distribution is on discrete values, as far as it says."""
    try:
        return bool(distribution.support.is_discrete)
    except (AttributeError, NotImplementedError):
        return False


def _is_mixed(distribution: Any) -> bool:
    """Whether some elements of a distribution's support are discrete and some are not."""
    return getattr(element_support(distribution), "is_mixed", False)
