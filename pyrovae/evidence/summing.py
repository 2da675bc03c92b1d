"""Choose the discrete latent sites that are summed out."""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from pyrovae.particles import MOST_VALUES, SummedSites

Enumerate = bool | Literal["auto"]
FEW = 32
"""Joint values that ``"auto"`` sums for each particle of the other sites."""

Supports = tuple[dict[str, Tensor], dict[str, str]]
"""All values of each discrete site, and the reasons why other discrete sites cannot be summed."""


def check_enumerate(value: Any) -> Enumerate:
    """The value, if it is True, False or ``"auto"``.

    Raises:
        ValueError: If it is anything else.
    """
    if value not in (True, False, "auto"):
        raise ValueError(f"enumerate must be True, False or 'auto', found {value!r}.")
    return value


def join_supports(one: Supports, other: Supports) -> Supports:
    """The supports that two sets of data share. A site whose values differ between them cannot be
    summed.
    """
    reasons = {**other[1], **one[1]}
    for name, values in one[0].items():
        if name not in other[0] or not torch.equal(values, other[0][name]):
            reasons.setdefault(name, "its values are not the same for all data")
    return {name: values for name, values in one[0].items() if name not in reasons}, reasons


def choose_summed(
    found: Supports,
    enumerate: Enumerate,
    *,
    completed: tuple[str, ...],
    num_latents: int,
    num_draws: int,
) -> tuple[SummedSites | None, dict[str, str]]:
    """The sites to sum out, and why other discrete sites are drawn.

    Args:
        found: Supports of the discrete sites.
        enumerate: ``"auto"`` sums up to 32 joint values; up to ``num_draws`` where nothing is left
            to draw; and up to 65,536 where the guide lacks a site, because there is no other way.
        completed: Sites that the guide lacks.
        num_latents: Number of latent sites.
        num_draws: The most particles of a datum.

    Raises:
        ValueError: If ``enumerate`` is True and a discrete site cannot be summed.
    """
    supports, drawn = found[0], dict(found[1])
    num = math.prod(len(values) for values in supports.values())
    limit = MOST_VALUES
    if enumerate == "auto" and not set(completed) & set(supports):
        alone = len(supports) == num_latents
        limit = max(FEW, min(num_draws, MOST_VALUES)) if alone else FEW
    if num > limit:
        why = f"there are {num} joint values, and at most {limit} are summed"
        drawn |= dict.fromkeys(supports, why)
        supports = {}
    if enumerate is True and drawn:
        name, why = next(iter(drawn.items()))
        raise ValueError(
            f"Site '{name}' cannot be summed out: {why}. Take enumerate='auto', which draws it."
        )
    return (SummedSites.product(supports) if supports else None), drawn


def describe_summed(
    summed: SummedSites | None, drawn: dict[str, str], exact: bool
) -> dict[str, Any]:
    """Notes for a result: ``summed``, ``drawn`` and ``exact``, those of them that apply."""
    notes: dict[str, Any] = {}
    if summed is not None:
        notes["summed"] = dict(summed.counts)
    if drawn:
        notes["drawn"] = drawn
    if exact:
        notes["exact"] = True
    return notes
