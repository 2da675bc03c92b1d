"""Checks that model and guide fit each other: names, plates, scales and event shapes."""

from collections.abc import Iterable
from typing import Any

import torch
from pyro.distributions import Unit
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from pyrovae.distributions.base import innermost
from pyrovae.particles.result import Particles
from pyrovae.particles.separate import WRAPPERS
from pyrovae.particles.site import LatentSite


def data_frame(site: Any) -> Any:
    """The data plate of a site, which is the right-most one.

    Raises:
        ValueError: If the site lies outside it.
    """
    for frame in site["cond_indep_stack"]:
        if frame.dim == -1:
            return frame
    name = site["name"]
    if site["infer"].get("is_auxiliary"):
        raise ValueError(
            f"The guide draws the auxiliary site '{name}' for all data at once, so it has no "
            "density for each datum. Use a guide that draws inside the data plate, such as Pyro's "
            "AutoNormal or a posterior of pyrovae."
        )
    raise ValueError(
        f"Site '{name}' lies outside the data plate, so it has no density for each datum. "
        "Put it inside pyro.plate('data', len(x)), the right-most batch dimension."
    )


def data_plate(sites: Iterable[Any]) -> tuple[int, int]:
    """Batch size and full size of the data plate.

    Raises:
        ValueError: If sites have different ones.
    """
    frames = {data_frame(site) for site in sites}
    sizes = {(frame.size, frame.full_size or frame.size) for frame in frames}
    if len(sizes) > 1:
        raise ValueError(
            f"The data plates disagree: (batch, full) sizes are {sorted(sizes)}. "
            "Use one plate size in model and guide."
        )
    ((num_data, full_size),) = sizes
    return num_data, full_size


def check_right_most(particles: Particles, args: tuple) -> None:
    """Raise if the data, which the first dimension of each argument counts, are in another plate
    than the right-most.

    Raises:
        ValueError: If the right-most plate is not of the arguments' length, and another one is.
    """
    size = next((len(arg) for arg in args if isinstance(arg, Tensor) and arg.dim()), None)
    if size is None or particles.num_data == size:
        return
    plates = {dim: (name, number) for name, dim, number in particles._plates}
    for dim, (name, number) in plates.items():
        if number == size:
            other = plates[-1][0]
            raise ValueError(
                f"The plate '{name}' of the {size} data is at dim={dim}, but the data must be the "
                f"right-most batch dimension. Say dim=-1 for '{name}' and dim=-2 for '{other}', "
                f"with values of shape (..., {size})."
            )


def check_factors(observed: dict) -> None:
    """Raise if the guide has a ``pyro.factor``, given its observed sites."""
    factors = [
        name for name, site in observed.items() if isinstance(innermost(site["fn"], WRAPPERS), Unit)
    ]
    if factors:
        raise ValueError(
            f"The guide has the factors {factors}, and a factor is the density of no site. Give "
            "the volume of a map to its point mass, as Delta(value, log_density=...)."
        )


def check_names(guide_sites: dict, model_sites: dict, observed: dict) -> None:
    """Raise unless both programs have the same latent sites and the model observes something."""
    missing = [name for name in model_sites if name not in guide_sites]
    if missing:
        raise ValueError(
            f"Latent sites {missing} are in the model but not in the guide, which has "
            f"{list(guide_sites)}. Sample them in the guide, or observe them in the model."
        )
    surplus = [
        name
        for name, site in guide_sites.items()
        if name not in model_sites and not site["infer"].get("is_auxiliary")
    ]
    if surplus:
        raise ValueError(
            f"Sites {surplus} are in the guide but not latent in the model, which has "
            f"{list(model_sites)}. "
            "Give both programs the same latent sites, or mark one infer={'is_auxiliary': True}."
        )
    if not observed:
        raise ValueError(
            "The model observes nothing. Give one site obs=..., inside the data plate."
        )


def handler_scale(site: Any, plate_scale: float) -> float | Tensor:
    """What handlers multiply the site's score by, beside the data plate's subsampling."""
    scale = site["scale"]
    if plate_scale != 1.0:
        scale = scale / plate_scale
    if isinstance(scale, Tensor):
        return scale
    return 1.0 if abs(scale - 1.0) < 1e-12 else float(scale)


def check_scale(name: str, model_site: Any, guide_site: Any, plate_scale: float) -> None:
    """Raise unless handlers scale a site in the same way in both programs."""
    in_model, in_guide = (handler_scale(site, plate_scale) for site in (model_site, guide_site))
    if in_model is in_guide:
        return
    if isinstance(in_model, Tensor) and isinstance(in_guide, Tensor):
        scales = len(model_site.get("kl_scale", ())), len(guide_site.get("kl_scale", ()))
        # KLScale compares its own factors; while a graph is captured, tensors have no values.
        if scales[0] == scales[1] and (any(scales) or _alike(in_model, in_guide)):
            return
    elif (
        not isinstance(in_model, Tensor)
        and not isinstance(in_guide, Tensor)
        and abs(in_model - in_guide) < 1e-9
    ):
        return
    if not model_site.get("kl_scale") and not guide_site.get("kl_scale"):
        raise ValueError(
            f"Site '{name}' is scaled by {in_model} in the model but by {in_guide} in the guide, "
            "by plates or poutine.scale. Give both programs the same of these. A guide that keeps "
            "parameters for each datum, as Pyro's AutoNormal does, needs all of its data in every "
            "call."
        )
    raise ValueError(
        f"Site '{name}' is scaled by {in_model} in the model but by {in_guide} in the guide. "
        "Wrap both with the same factor: KLScale(beta)(model) and KLScale(beta)(guide)."
    )


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal, as far as there are values to compare."""
    return _get_current_dispatch_mode() is not None or torch.equal(one, other)


def per_datum(scale: float | Tensor, site: Any) -> float | Tensor:
    """A latent site's scale as a number, ``(B,)`` or ``(K, B)``.

    Raises:
        ValueError: If it differs between elements of an inner plate.
    """
    if not isinstance(scale, Tensor) or scale.dim() < 2:
        return scale
    lead = int(scale.dim() == len(site["fn"].batch_shape))  # whether particles come first
    if any(size != 1 for size in scale.shape[lead:-1]):
        raise ValueError(
            f"Site '{site['name']}' is scaled by a tensor of shape {tuple(scale.shape)}, and a "
            "latent site has one factor for each datum. Give the elements of an inner plate that "
            "have other factors a site of their own."
        )
    return scale.reshape(*scale.shape[:lead], scale.shape[-1])


def check_event(site: LatentSite) -> None:
    """Raise unless a site has the same event shape in both programs."""
    left, right = tuple(site.prior.event_shape), tuple(site.posterior.event_shape)
    if left != right:
        raise ValueError(
            f"Site '{site.name}' has event shape {left} in the model but {right} in the guide. "
            "Give both distributions the same event dimensions (to_event)."
        )
