"""Check programs and data before any estimate, and record what the programs are like."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor

from pyrovae.declare import is_count
from pyrovae.evidence.checks import CountObserved, RefuseTraining, check_arguments
from pyrovae.evidence.sampler import Sampler, check_log_weights
from pyrovae.evidence.streams import DatumStreams, data_keys, fingerprint
from pyrovae.evidence.summing import Supports, join_supports
from pyrovae.particles import (
    NestedPlates,
    Particles,
    SummedSites,
    check_right_most,
    draw,
    find_supports,
    is_point,
    settle,
)
from pyrovae.programs import Program, alone, evaluation_mode, find_device, store_as_found

__all__ = ["Inspection", "evaluating", "in_pieces", "inspect"]

MEBIBYTE = 2**20


@dataclass(frozen=True)
class Inspection:
    """Two programs, checked data, and what one particle of every datum showed.

    Attributes:
        model, guide: The two programs.
        args: Arguments of both programs, as tensors with one leading dimension.
        keys: ``(B,)`` random streams of the data.
        device: Where the programs run.
        max_plate_nesting: Number of batch dimensions that the programs use themselves.
        seed: Seed of all random numbers.
        memory_budget: Bytes that one piece of work may take.
        progress: Whether to show a progress bar.
        num_dims: Mean number of observed elements of a datum; masked elements do not count. 0 where
            they are partly discrete, and bits per dimension would have no meaning.
        discrete: Whether log p(x) is a log-probability.
        latents: Names of the latent sites.
        completed: Latent sites that the guide lacks.
        points: Sites at which the guide is a point mass, without a density. A point mass that maps
            auxiliary draws has one, and does not count.
        auxiliary: Names of the sites that the guide alone draws.
        mapped: Whether latent sites are functions of these.
        whole: Whether the programs take all of the data or none, as a guide with parameters for
            each datum does.
        supports: Values of the discrete sites that can be summed, and why others cannot.
    """

    model: Program
    guide: Program
    args: tuple[Tensor, ...]
    keys: np.ndarray
    device: torch.device
    max_plate_nesting: int
    seed: int
    memory_budget: int
    progress: bool
    num_dims: float
    discrete: bool
    latents: tuple[str, ...]
    completed: tuple[str, ...]
    points: tuple[str, ...]
    auxiliary: tuple[str, ...]
    mapped: bool
    whole: bool
    supports: Supports

    @property
    def num_data(self) -> int:
        """B."""
        return len(self.keys)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the data in their order."""
        return fingerprint(self.args)

    def sampler(self, summed: SummedSites | None = None, scorer: Any = None) -> Sampler:
        """The sampler of all data."""
        programs = self.model, self.guide
        return Sampler(
            *programs, self.args, self.keys, self.device, self.max_plate_nesting, summed, scorer
        )

    def evaluating(self) -> Any:
        """The context in which methods run: :func:`evaluating`."""
        return evaluating(self.model, self.guide, device=self.device)


def inspect(
    model: Program,
    guide: Program,
    data: Any,
    seed: int = 0,
    memory_budget: int | None = None,
    device: Any = None,
    max_plate_nesting: int | None = None,
    progress: bool = False,
) -> Inspection:
    """Check data and settings, and run both programs once on every datum, with Pyro's validation
    on.

    Arguments are those of :func:`~pyrovae.evidence.log_marginal`.

    Raises:
        TypeError: If the data are not arrays, or the seed is not an integer.
        ValueError: If the data are empty, of unequal lengths or not finite; if a setting is out of
            range; if the programs refuse the data or are scaled.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(f"seed must be an integer, found {seed!r}.")
    if memory_budget is not None and memory_budget < 1:
        raise ValueError(
            f"memory_budget must be a positive number of bytes, found {memory_budget}."
        )
    if max_plate_nesting is not None and not is_count(max_plate_nesting):
        raise ValueError(
            f"max_plate_nesting must be at least 1 (the data plate), found {max_plate_nesting}."
        )
    with evaluating(model, guide, device=device):
        args, place = check_arguments(model, guide, data, device)
        if memory_budget is None:
            memory_budget = (256 if place.type == "cpu" else 4096) * MEBIBYTE
        known = model, guide, args, data_keys(args, int(seed)), place
        found = _run_once(*known, max_plate_nesting, memory_budget)
    settings: dict[str, Any] = {"seed": int(seed), "memory_budget": int(memory_budget)}
    return Inspection(*known, **settings, progress=progress, **found)


def _run_once(
    model: Program,
    guide: Program,
    args: tuple[Tensor, ...],
    keys: np.ndarray,
    device: torch.device,
    max_plate_nesting: int | None,
    memory_budget: int,
) -> dict[str, Any]:
    """The fields of :class:`Inspection` that one particle of every datum shows."""
    width = sum(arg[0].numel() * arg.element_size() for arg in args)
    size = max(1, min(len(keys), memory_budget // (64 * max(width, 1))))
    supports: Supports | None = None
    observed = CountObserved()
    nesting = max_plate_nesting or 1

    def run(index: np.ndarray) -> Particles:
        nonlocal nesting
        rows = tuple(arg[index].to(device) for arg in args)

        def drawn() -> Particles:
            streams = DatumStreams(keys[index], 1, axis=nesting)
            with pyro.validation_enabled(True), streams, RefuseTraining(), observed:
                found = draw(model, guide, 1, rows, max_plate_nesting=nesting, complete=True)
            if found.num_data != len(index):
                check_right_most(found, rows)
                raise ValueError(
                    f"The programs take {found.num_data} of {len(index)} data, so their plate "
                    "draws a subsample of its own. Evidence is of each datum: give the plate "
                    "subsample=x in place of subsample_size."
                )
            return found

        try:
            return drawn()
        except NestedPlates:
            if max_plate_nesting is not None:
                raise
        plain = draw(model, guide, 1, rows, complete=True, plate=False)
        check_right_most(plain, rows)
        nesting = plain.nesting
        return drawn()

    num = min(4, size, len(keys) - 1)
    try:
        first, whole = [run(np.arange(num))] if num else [], False
    except Exception:  # whatever else may be wrong shows with all of the data
        first, whole, num = [], True, 0
    rest = in_pieces(len(keys) - num, len(keys) if whole else size)
    for particles in itertools.chain(first, (run(num + index) for index in rest)):
        if particles.scaled:
            raise ValueError(
                "A handler scales the programs (KLScale or poutine.scale with a factor other than "
                "1). beta belongs to training: pass model and guide without it."
            )
        for site in particles.latents.values():
            if not site.masks_agree:
                raise ValueError(
                    f"A mask hides part of the site '{site.name}' in one program and not in the "
                    "other, so the weights are none of p(x). Put the same poutine.mask into both."
                )
        check_log_weights(particles.log_weights)
        few = find_supports(particles)
        supports = few if supports is None else join_supports(supports, few)
        observed.finish_piece()
    some = tuple(arg[: len(keys) if whole else 4].to(device) for arg in args)
    settle(model, guide, some, max_plate_nesting=nesting, again=True)
    latents = particles.latents
    points = [] if particles.mapped else [n for n, s in latents.items() if is_point(s.posterior)]
    return {
        "max_plate_nesting": nesting,
        "num_dims": 0.0 if particles.mixed else observed.total / len(keys),
        "discrete": particles.discrete,
        "latents": tuple(latents),
        "completed": particles.completed,
        "points": tuple(points),
        "auxiliary": tuple(particles.auxiliary),
        "mapped": particles.mapped,
        "whole": whole,
        "supports": supports,
    }


@contextmanager
def evaluating(model: Program, guide: Program, *, device: Any = None) -> Iterator[None]:
    """Eval mode, no gradients, no validation by Pyro; modes, settings and random state come back
    afterwards.

    ``torch.inference_mode`` is off inside, because methods that follow gradients need tensors that
    can have them.
    """
    cuda = torch.cuda.is_initialized() or (
        device is not None and find_device(device).type == "cuda"
    )
    devices = list(range(torch.cuda.device_count())) if cuda else []
    with (
        alone(),
        store_as_found(model, guide),
        torch.inference_mode(False),
        torch.random.fork_rng(devices=devices),
        evaluation_mode(model, guide),
        torch.no_grad(),
        pyro.validation_enabled(False),
    ):
        yield


def in_pieces(
    num_data: int, size: int, *, progress: bool = False, label: str = ""
) -> Iterator[np.ndarray]:
    """Indices of consecutive data, ``size`` at a time, with a progress bar where asked for.

    All work on data goes through this loop: a piece is done when the next one is asked for.
    """
    from tqdm.auto import tqdm

    with tqdm(total=num_data, desc=label, unit="datum", disable=not progress) as bar:
        for first in range(0, num_data, size):
            index = np.arange(first, min(first + size, num_data))
            yield index
            bar.update(len(index))
