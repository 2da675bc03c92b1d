"""Which discrete latent sites an evidence method sums out, and how."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from pyrovae.evidence.streams import BLOCK, DatumStreams
from pyrovae.particles import MOST_VALUES, Particles, SummedSites

if TYPE_CHECKING:
    from pyrovae.evidence.problem import Problem

Enumerate = bool | Literal["auto"]
FEW = 32
"""Joint values that are summed without being asked to, for each particle of the other sites."""

_SAME = "its values are not the same for all data"


def check_enumerate(value: Any) -> Enumerate:
    """The value, once it is one."""
    if value not in (True, False, "auto"):
        raise ValueError(f"enumerate must be True, False or 'auto', found {value!r}.")
    return value


def choose(
    found: Sequence[tuple[dict[str, Tensor], dict[str, str]]],
    particles: Particles,
    enumerate: Enumerate,
    num_draws: int,
) -> tuple[SummedSites | None, dict[str, str]]:
    """The sites to sum out, and why other discrete ones are drawn.

    Args:
        found: For each piece of the data, supports and reasons of :func:`~pyrovae.particles.find_supports`.
        particles: Some that have all latent sites.
        enumerate: ``"auto"`` sums where the joint values are few, or no more than ``num_draws`` and nothing is left to
            draw, or where the guide lacks a site, which leaves no other way.
        num_draws: The most particles of a datum.

    Raises:
        ValueError: If all discrete sites were asked for, and one cannot be summed.
    """
    supports, drawn = (
        found[0][0],
        {name: why for _, reasons in found for name, why in reasons.items()},
    )
    for others, _ in found[1:]:
        for name, values in supports.items():
            if name not in others or not torch.equal(values, others[name]):
                drawn.setdefault(name, _SAME)
    supports = {name: values for name, values in supports.items() if name not in drawn}
    num = math.prod(len(values) for values in supports.values())
    limit = MOST_VALUES
    if enumerate == "auto" and not set(particles.completed) & set(supports):
        alone = len(supports) == len(particles.latents)
        limit = max(FEW, min(num_draws, MOST_VALUES)) if alone else FEW
    if num > limit:
        drawn |= dict.fromkeys(
            supports, f"there are {num} joint values, and at most {limit} are summed"
        )
        supports = {}
    if enumerate is True and drawn:
        name, why = next(iter(drawn.items()))
        raise ValueError(
            f"Site '{name}' cannot be summed out: {why}. Take enumerate='auto', which draws it."
        )
    return (SummedSites.product(supports) if supports else None), drawn


def lay_out_values(problem: "Problem", summed: SummedSites) -> SummedSites:
    """The values along a dimension of their own, if a trial shows that the programs broadcast over it."""
    encoded = problem.encode(slice(0, min(2, problem.num_data)))
    trial = summed.first(8)

    def weigh(wide: bool) -> Particles:
        with DatumStreams(encoded.keys, 3, axis=problem.max_plate_nesting):
            return encoded.draw_summed_here(3, replace(trial, wide=wide))

    expected = weigh(False)
    try:
        found = weigh(True)
    except Exception:  # whatever a program raises that was not written for it
        return summed
    wide = True
    for name in ("log_p", "log_q", "log_prior"):
        one, other = getattr(expected, name), getattr(found, name)
        close = torch.finfo(one.dtype).eps ** 0.5
        wide &= torch.allclose(one, other, rtol=close, atol=close)
    return replace(summed, wide=wide)


def cut(problem: "Problem", summed: SummedSites, bytes_of_one: int) -> SummedSites:
    """So many values at once that the least piece of work stays within the memory budget."""
    least = 1 if problem.exact else BLOCK
    return replace(
        summed,
        chunk=max(1, min(summed.num_values, problem.memory_budget // (least * bytes_of_one))),
    )


def describe(summed: SummedSites | None, drawn: dict[str, str], exact: bool) -> dict[str, Any]:
    """Notes for a result."""
    notes: dict[str, Any] = {}
    if summed is not None:
        notes["summed"] = dict(summed.counts)
    if drawn:
        notes["drawn"] = drawn
    if exact:
        notes["exact"] = True
    return notes
