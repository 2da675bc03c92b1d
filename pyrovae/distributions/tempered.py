"""Distributions with less, or more, noise."""

import copy
from typing import Any

import pyro.distributions as dist
from torch.distributions import Independent

from pyrovae.distributions.exemplars import IsotropicNormalMixture
from pyrovae.distributions.flow import FlowDistribution
from pyrovae.distributions.location_scale import StudentT
from pyrovae.distributions.mixture import ComponentMixture, DiagonalNormalMixture

__all__ = ["tempered"]


def tempered(distribution: Any, temperature: float) -> Any:
    r"""A distribution whose noise is multiplied by a temperature.

    Of a normal, a Laplace or a Student t it multiplies the scale; of a mixture, the scale of each
    component; of a flow, that of the base variable. Below 1, draws come from where the density is
    high; at 1 the distribution is as it was.

    Args:
        distribution: One of these, independent over its dimensions or not.
        temperature: A positive number.

    Raises:
        ValueError: If the temperature is not positive, or the distribution has no such noise.

    References:
        Glow: Generative Flow with Invertible 1x1 Convolutions (Kingma and Dhariwal, 2018),
        section 6, `arXiv:1807.03039 <https://arxiv.org/abs/1807.03039>`_.

    Example:
        >>> import torch
        >>> tempered(dist.Normal(torch.zeros(2), 1.0).to_event(1), 0.5).stddev
        tensor([0.5000, 0.5000])
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be a positive number, found {temperature}.")
    if isinstance(distribution, Independent):
        inner = tempered(distribution.base_dist, temperature)
        return inner.to_event(distribution.reinterpreted_batch_ndims)
    if isinstance(distribution, DiagonalNormalMixture):
        scales = distribution.scales * temperature
        return DiagonalNormalMixture(distribution.locs, scales, distribution.logits)
    if isinstance(distribution, ComponentMixture):
        return ComponentMixture(tempered(distribution.components, temperature))
    if isinstance(distribution, IsotropicNormalMixture):
        cooled = copy.copy(distribution)
        cooled.scale = distribution.scale * temperature
        return cooled
    if isinstance(distribution, FlowDistribution):
        cooled = copy.copy(distribution)
        cooled.base, cooled._last = tempered(distribution.base, temperature), None
        return cooled
    if isinstance(distribution, dist.Normal | dist.Laplace):
        return type(distribution)(distribution.loc, distribution.scale * temperature)
    if isinstance(distribution, StudentT):
        return StudentT(distribution.df, distribution.loc, distribution.scale * temperature)
    raise ValueError(
        f"A {type(distribution).__name__} has no scale that a temperature could change. Use a "
        "prior on R^D, such as priors.StandardNormal() or priors.Vamp(), or temperature=1."
    )
