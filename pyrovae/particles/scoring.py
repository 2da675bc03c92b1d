"""Trace the model against the guide's trace, check that the two fit, and score both."""

import math
from typing import Any

import pyro
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.infer.util import is_validation_enabled
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyrovae.particles.result import LatentSite, Particles
from pyrovae.programs import Program

PARTICLE_PLATE = "_particles"


def particle_plate(num_particles: int, max_plate_nesting: int) -> Any:
    return pyro.plate(PARTICLE_PLATE, num_particles, dim=-1 - max_plate_nesting)


class plate_errors:
    """Turn Pyro's words on colliding plates into what to do about them."""

    def __init__(self, max_plate_nesting: int):
        self.max_plate_nesting = max_plate_nesting

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if isinstance(error, ValueError) and "collide at dim" in str(error):
            raise ValueError(
                f"The programs nest more than max_plate_nesting={self.max_plate_nesting} plates ({error}). "
                f"Pass max_plate_nesting={self.max_plate_nesting + 1} or more."
            ) from error


def score(
    model: Program,
    guide_trace: Any,
    num_particles: int,
    args: tuple,
    kwargs: dict[str, Any],
    *,
    max_plate_nesting: int = 1,
    drawn: dict[str, Tensor] | None = None,
    model_trace: Any = None,
    complete: bool = False,
) -> Particles:
    """Replay the model against a guide trace made under the particle plate (if not done yet), and score both."""
    if model_trace is None:
        model_trace = replay(model, guide_trace, num_particles, args, kwargs, max_plate_nesting)
    guide_sites = sites_of(guide_trace, observed=False)
    model_sites = sites_of(model_trace, observed=False)
    observed = sites_of(model_trace, observed=True)
    completed = {
        name: site for name, site in model_sites.items() if complete and name not in guide_sites
    }
    guide_sites = {**guide_sites, **completed}
    _check_names(guide_sites, model_sites, observed)
    frames = {
        data_frame(site)
        for site in (*guide_sites.values(), *model_sites.values(), *observed.values())
    }
    sizes = {(frame.size, frame.full_size or frame.size) for frame in frames}
    if len(sizes) > 1:
        raise ValueError(
            f"The data plates disagree: (batch, full) sizes are {sorted(sizes)}. "
            "Use one plate size in model and guide."
        )
    ((num_data, full_size),) = sizes
    plate_scale = full_size / num_data if num_data else 1.0

    def reduce(log_prob: Tensor) -> Tensor:
        if log_prob.dim() > 2:
            log_prob = log_prob.sum(tuple(range(1, log_prob.dim() - 1)))
        return log_prob.expand(num_particles, num_data)

    latents: dict[str, LatentSite] = {}
    order = list(model_sites)
    for name, site in guide_sites.items():
        if name not in model_sites:
            continue
        weight = _handler_scale(model_sites[name], plate_scale)
        value: Any = site["value"]
        _check_scale(name, model_sites[name], site, plate_scale)
        latents[name] = LatentSite(
            name=name,
            value=value,
            drawn=drawn[name] if drawn else value,
            prior=model_sites[name]["fn"],
            posterior=site["fn"],
            kl_weight=weight,
            in_order=set(order[: order.index(name)]) <= set(latents),
            _reduce=reduce,
            _masks=(model_sites[name]["mask"], site["mask"]),
            _seen=model_sites[name]["value"],
        )
    if is_validation_enabled():
        for site in latents.values():
            _check_event(site)
    log_likelihood: Any = 0.0
    likelihood_scaled = False
    for site in observed.values():
        scale: Any = _handler_scale(site, plate_scale)
        unscaled = isinstance(scale, float) and scale == 1.0
        likelihood_scaled |= not unscaled
        log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
        log_likelihood = log_likelihood + reduce(
            scale_and_mask(log_prob, scale=1.0 if unscaled else scale, mask=site["mask"])
        )
    return Particles(
        latents=latents,
        log_likelihood=log_likelihood,
        num_particles=num_particles,
        num_data=num_data,
        scale=plate_scale,
        likelihood_scaled=likelihood_scaled,
        num_dims=sum(_numel(site) for site in observed.values()) // max(num_data, 1),
        discrete=all(is_discrete(site["fn"]) for site in observed.values()),
        completed=tuple(completed),
        auxiliary=tuple(name for name in guide_sites if name not in model_sites),
    )


def replay(model, guide_trace, num_particles, args, kwargs, max_plate_nesting):
    replayed = poutine.replay(
        particle_plate(num_particles, max_plate_nesting)(model), trace=guide_trace
    )
    with plate_errors(max_plate_nesting):
        return poutine.trace(replayed).get_trace(*args, **kwargs)


def sites_of(trace: Any, *, observed: bool) -> dict[str, Any]:
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample"
        and site["is_observed"] == observed
        and not site_is_subsample(site)
    }


def data_frame(site: Any) -> Any:
    for frame in site["cond_indep_stack"]:
        if frame.dim == -1:
            return frame
    raise ValueError(
        f"Site '{site['name']}' lies outside the data plate, so it has no density for each datum. "
        "Put it inside pyro.plate('data', len(x)), the right-most batch dimension."
    )


def _check_names(guide_sites: dict, model_sites: dict, observed: dict) -> None:
    missing = [name for name in model_sites if name not in guide_sites]
    if missing:
        raise ValueError(
            f"Latent sites {missing} are in the model but not in the guide, which has {list(guide_sites)}. "
            "Sample them in the guide, or observe them in the model."
        )
    surplus = [
        name
        for name, site in guide_sites.items()
        if name not in model_sites and not site["infer"].get("is_auxiliary")
    ]
    if surplus:
        raise ValueError(
            f"Sites {surplus} are in the guide but not latent in the model, which has {list(model_sites)}. "
            "Give both programs the same latent sites, or mark one infer={'is_auxiliary': True}."
        )
    if not observed:
        raise ValueError(
            "The model observes nothing. Give one site obs=..., inside the data plate."
        )


def _numel(site: Any) -> int:
    """Elements of an observed site for all data, one particle."""
    frames = [
        frame.size
        for frame in site["cond_indep_stack"]
        if frame.vectorized and frame.name != PARTICLE_PLATE
    ]
    return math.prod([*site["fn"].event_shape, *frames])


def is_discrete(distribution: Any) -> bool:
    try:
        return bool(distribution.support.is_discrete)
    except (AttributeError, NotImplementedError):
        return False


def _handler_scale(site: Any, plate_scale: float) -> float | Tensor:
    """What handlers multiply the site's score by, beside the data plate's subsampling."""
    scale = site["scale"]
    if plate_scale != 1.0:
        scale = scale / plate_scale
    if isinstance(scale, Tensor):
        return scale
    return 1.0 if abs(scale - 1.0) < 1e-12 else float(scale)


def _check_scale(name: str, model_site: Any, guide_site: Any, plate_scale: float) -> None:
    in_model, in_guide = (_handler_scale(site, plate_scale) for site in (model_site, guide_site))
    if in_model is in_guide:
        return
    if isinstance(in_model, Tensor) and isinstance(in_guide, Tensor):
        if len(model_site.get("kl_scale", ())) == len(guide_site.get("kl_scale", ())):
            return
    elif (
        not isinstance(in_model, Tensor)
        and not isinstance(in_guide, Tensor)
        and abs(in_model - in_guide) < 1e-9
    ):
        return
    raise ValueError(
        f"Site '{name}' is scaled by {in_model} in the model but by {in_guide} in the guide. "
        "Wrap both with the same factor: KLScale(beta)(model) and KLScale(beta)(guide)."
    )


def _check_event(site: LatentSite) -> None:
    left, right = tuple(site.prior.event_shape), tuple(site.posterior.event_shape)
    if left != right:
        raise ValueError(
            f"Site '{site.name}' has event shape {left} in the model but {right} in the guide. "
            "Give both distributions the same event dimensions (to_event)."
        )


def given(values: dict[str, Tensor]) -> Any:
    """A trace of latent values, to replay a program against."""
    trace = poutine.Trace()
    for name, value in values.items():
        trace.add_node(name, name=name, type="sample", value=value, is_observed=False, infer={})
    return trace
