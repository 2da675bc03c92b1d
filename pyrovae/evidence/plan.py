"""Decide how the work is done: sizes of pieces, what is summed, and whether a graph scores
particles.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from pyrovae.compilation import pays_back
from pyrovae.evidence.inspection import MEBIBYTE, Inspection
from pyrovae.evidence.sampler import Sampler
from pyrovae.evidence.streams import BLOCK
from pyrovae.evidence.summing import Enumerate, choose_summed, describe_summed
from pyrovae.evidence.tiles import Tiles
from pyrovae.particles import Particles, SummedSites, draw
from pyrovae.particles.random_operators import DispatchMode

__all__ = ["Plan", "plan"]

CACHED = 64 * MEBIBYTE
"""Bytes that a piece of uncompiled work may write on CPU. With more, programs
wait for main memory.
"""


@dataclass(frozen=True)
class Plan:
    """How a method works through the data.

    Attributes:
        num_data, num_particles: Data and particles of each in one piece of work.
        bytes_per_particle: Estimated bytes for one particle of one datum.
        memory_budget: Bytes that one piece of work may take.
        device: Where the programs run.
        progress: Whether to show a progress bar.
        most_at_once: The most particles of a datum in one piece.
        summed: Discrete sites that are summed out, and how many of their values at a time.
        exact: Whether no site is left to draw, so that a single weight is p(x).
        scorer: Computes log weights by a compiled graph, or None.
        notes: What a result should tell about discrete sites.
        parts: Keeps what is finished, and shares the work between processes; or None.
    """

    num_data: int
    num_particles: int
    bytes_per_particle: int
    memory_budget: int
    device: torch.device
    progress: bool
    most_at_once: int
    summed: SummedSites | None = None
    exact: bool = False
    scorer: Tiles | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    parts: Any = None

    def cut(self, num_particles: int) -> tuple[int, int]:
        """Data and particles of a piece that holds up to ``num_particles`` of each datum."""
        at_once = min(num_particles, self.most_at_once)
        return _cut(at_once, 1, self.bytes_per_particle, self.memory_budget)


def plan(
    inspection: Inspection,
    num_particles: int,
    *,
    bytes_per_datum: int = 0,
    enumerate: Enumerate = False,
    most_particles: int = 1,
    density: bool = True,
    compile: bool | Literal["auto"] = False,
    in_cache: bool = False,
) -> Plan:
    """Plan the work, inside :func:`~pyrovae.evidence.inspection.evaluating`.

    Args:
        inspection: Programs and data.
        num_particles: Particles of a datum that a piece may hold.
        bytes_per_datum: Bytes that are held for each datum besides.
        enumerate: Whether discrete sites are summed out; ``"auto"`` if that costs little.
        most_particles: The most particles that a datum may get.
        density: Whether the guide must have a density.
        compile: Whether a compiled graph scores the particles; ``"auto"`` if that pays.
        in_cache: Whether pieces are small on CPU where programs run as they are.

    Raises:
        ValueError: If the guide lacks a density or a site that must be drawn, or if discrete sites
            must be summed and cannot be.
    """
    summed, exact, notes = _sum_out(inspection, enumerate, most_particles)
    _check_guide(inspection, summed, density)
    size, separate = _bytes_per_particle(inspection, summed, exact)
    # Random numbers of particles that run one by one depend on where their piece began.
    most_at_once = BLOCK if separate else 4 * BLOCK
    at_once = min(num_particles, most_at_once)
    budget, num_data, device = inspection.memory_budget, inspection.num_data, inspection.device
    unit = num_data if inspection.whole else 1  # data that cannot be taken apart
    data, particles = _cut(at_once, unit, size, budget, bytes_per_datum)
    scorer, total = None, num_particles * num_data
    if compile and not exact:
        data = math.ceil(num_data / math.ceil(num_data / data))  # pieces of nearly one size
        if compile is True or pays_back(size * total):
            shape = data, particles
            scorer = Tiles(inspection.model, shape, size, device, compile=compile, total=total)
    if in_cache and scorer is None and device.type == "cpu":
        data, particles = _cut(at_once, unit, size, min(budget, CACHED), bytes_per_datum)
    settings = size, budget, device, inspection.progress, most_at_once
    return Plan(data, particles, *settings, summed, exact, scorer, notes)


def _check_guide(inspection: Inspection, summed: SummedSites | None, density: bool) -> None:
    """Raise if the guide lacks a density that is needed, or a site that is not summed out."""
    if density and inspection.points:
        raise ValueError(
            f"The guide's site '{inspection.points[0]}' is a Delta. A point has no density over z, "
            "so there are no weights and no evidence. Train a guide with a density "
            "(posteriors.DiagonalNormal), or use "
            'AIS(start="prior") with such a guide.'
        )
    if set(inspection.completed) - set(summed.values if summed else ()):
        one = inspection.sampler().select(slice(0, 1))
        nesting = one.max_plate_nesting
        # Without complete=True this raises, with a message that names what the guide lacks.
        draw(one.model, one.guide, 1, one.args, max_plate_nesting=nesting)


def _cut(
    at_once: int, unit: int, bytes_per_particle: int, budget: int, bytes_per_datum: int = 0
) -> tuple[int, int]:
    """Data, ``unit`` of them at least, and particles of a piece.

    Particles are few or a multiple of ``BLOCK``, as the streams need it.
    """
    rows = max(1, budget // (bytes_per_particle * unit))
    particles = at_once if rows >= at_once else min(at_once, max(BLOCK, rows // BLOCK * BLOCK))
    data = max(1, rows // particles)
    if bytes_per_datum:
        data = min(data, max(1, budget // bytes_per_datum))
    return max(data, unit), particles


def _sum_out(
    inspection: Inspection, enumerate: Enumerate, most_particles: int
) -> tuple[SummedSites | None, bool, dict[str, Any]]:
    """The sites that are summed out, whether no other is left, and notes about both."""
    if enumerate is False or not any(inspection.supports):
        return None, False, {}
    summed, drawn = choose_summed(
        inspection.supports,
        enumerate,
        completed=inspection.completed,
        num_latents=len(inspection.latents),
        num_draws=most_particles,
    )
    exact = summed is not None and set(summed.values) == set(inspection.latents)
    notes = describe_summed(summed, drawn, exact)
    if summed is None:
        return None, False, notes
    summed = replace(summed, wide=_broadcasts(inspection.sampler(summed)))
    one, _ = _bytes_per_particle(inspection, summed.first(1), exact)
    least = 1 if exact else BLOCK  # particles of the smallest piece of work
    chunk = max(1, min(summed.num_values, inspection.memory_budget // (least * one)))
    return replace(summed, chunk=chunk), exact, notes


def _broadcasts(sampler: Sampler) -> bool:
    """Whether the programs broadcast over a further dimension, of the summed values, as a trial
    shows.
    """
    assert sampler.summed is not None
    some, trial = sampler.select(slice(0, 2)), sampler.summed.first(8)

    def weigh(wide: bool) -> Particles:
        return replace(some, summed=replace(trial, wide=wide)).draw(3)

    expected = weigh(False)
    try:
        found = weigh(True)
    except Exception:  # whatever a program raises that was not written for it
        return False
    close = torch.finfo(expected.log_p.dtype).eps ** 0.5
    return all(
        torch.allclose(getattr(expected, name), getattr(found, name), rtol=close, atol=close)
        for name in ("log_p", "log_q", "log_prior")
    )


def _bytes_per_particle(
    inspection: Inspection, summed: SummedSites | None, exact: bool
) -> tuple[int, bool]:
    """Bytes for one particle of one datum, and whether the programs run for each particle by
    itself.
    """
    num_data, num_particles = (1, 1) if exact else (min(4, inspection.num_data), 8)
    if inspection.whole:
        num_data = inspection.num_data
    some = inspection.sampler(summed).select(slice(0, num_data))
    some.encoded  # noqa: B018
    streams = some.streams(num_particles)
    with _CountBytes() as counter:
        some.draw(num_particles, streams=streams).log_weights  # noqa: B018
    return max(1, math.ceil(counter.total / (num_data * num_particles))), streams.separate


class _CountBytes(DispatchMode):
    """Adds up the bytes of all tensors made while active, except views."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if not any(result.alias_info is not None for result in func._schema.returns):
            for tensor in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(tensor, Tensor):
                    self.total += tensor.numel() * tensor.element_size()
        return out
