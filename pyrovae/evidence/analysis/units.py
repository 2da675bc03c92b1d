"""What each latent element carries: the centre of its codes, and its part of the KL."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Independent

from pyrovae.distributions.base import innermost
from pyrovae.particles import Particles

__all__ = ["centres", "kl_of_units"]


def centres(particles: Particles, axis: int) -> tuple[Tensor, Tensor]:
    """``(B, D)``: the guide's mean of each latent element, and the variance of that mean's own
    error.
    """
    means = []
    for site in particles.latents.values():
        mean = _mean_of(site.posterior, site.value).double().movedim(axis, 1)
        means.append(mean.reshape(*mean.shape[:2], -1))
    joined = torch.cat(means, -1)  # (K, B, D)
    num = len(joined)
    return joined.mean(0), joined.var(0, correction=min(1, num - 1)) / num


def kl_of_units(particles: Particles, axis: int) -> Tensor:
    """``(B, D)``: each latent element's part of the KL, in nats; NaN for a site whose prior or
    guide is not independent over elements.
    """
    parts = []
    for site in particles.latents.values():
        part = _by_element(site)
        if part is None:
            part = torch.full(site.value.shape, math.nan, device=site.value.device)
        part = part.double().movedim(axis, 1)
        parts.append(part.reshape(*part.shape[:2], -1).mean(0))
    return torch.cat(parts, -1)


def _by_element(site: Any) -> Tensor | None:
    """``(K, ..., *event)``: log q - log p of each element, if these add up to the site's."""
    both = [innermost(law, Independent) for law in (site.posterior, site.prior)]
    if any(law is None or law.event_shape for law in both):
        return None
    posterior, prior = (law.log_prob(site.value) for law in both)
    difference = (posterior - prior).expand(site.value.shape)
    whole = site.log_q - site.log_p  # (K, B), with masks and scales
    if not torch.allclose(difference.sum(), whole.sum(), rtol=1e-3, atol=1e-3):
        return None
    return difference


def _mean_of(distribution: Any, draws: Tensor) -> Tensor:
    """The distribution's exact mean in the shape of ``draws``; where there is none, the draws."""
    try:
        mean = distribution.mean
    except (AttributeError, NotImplementedError):
        return draws
    if mean.dtype != draws.dtype or not bool(mean.isfinite().all()):
        return draws
    return mean.expand(draws.shape)
