"""What every evidence method starts from: programs, checked data, streams, and pieces of work that fit in memory."""

import copy
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyro
import torch
from pyro.distributions import Delta
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pyrovae.compilation.lowering import pays_back
from pyrovae.evidence.streams import BLOCK, DatumStreams, data_keys, fingerprint, further
from pyrovae.evidence.summing import Enumerate, choose, cut, describe, lay_out_values
from pyrovae.evidence.tiles import Tiles
from pyrovae.particles import (
    Particles,
    SummedSites,
    draw,
    draw_encoded,
    draw_latent,
    draw_prior,
    draw_summed,
    encode,
    encoded_normal,
    find_supports,
    score_values,
    score_values_summed,
)
from pyrovae.programs import Program, evaluation_mode, modules_of

_MEBIBYTE = 2**20
_CACHED = (
    64 * _MEBIBYTE
)  # written by a piece, mostly over itself; with more, programs wait for memory


@dataclass
class Problem:
    """A model, a guide, and the data whose evidence is asked for.

    Attributes:
        model, guide: The two programs.
        args: Data tensors with one leading dimension, as given to both programs, on their own device.
        device: Where the programs run.
        seed: Of every random number.
        max_plate_nesting: Batch dimensions that the programs use themselves.
        memory_budget: Bytes that one piece of work may take.
        keys: ``(B,)``, the data's random streams.
        progress: Whether to show a bar.
        num_dims: Observed elements of a datum.
        discrete: Whether log p(x) is a log-probability.
        bytes_per_particle: Estimated bytes for one particle of one datum.
        tiles: Scores particles under the model by a compiled graph, where that pays (:meth:`expect`).
        summed: Discrete sites that are summed out: particles are then those of the other sites (:meth:`inspect`).
        exact: Whether no site is left to draw, so that a single weight is p(x).
        notes: What a result should say of discrete sites.
    """

    model: Program
    guide: Program
    args: tuple[Tensor, ...]
    device: torch.device
    seed: int = 0
    max_plate_nesting: int = 1
    memory_budget: int = 256 * _MEBIBYTE
    progress: bool = False
    keys: np.ndarray = field(init=False)
    num_dims: int = field(init=False, default=0)
    discrete: bool = field(init=False, default=False)
    bytes_per_particle: int = field(init=False, default=1)
    tiles: Tiles | None = field(init=False, default=None)
    summed: SummedSites | None = field(init=False, default=None)
    exact: bool = field(init=False, default=False)
    notes: dict[str, Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.keys = data_keys(self.args, self.seed)

    @property
    def num_data(self) -> int:
        """B."""
        return len(self.args[0])

    @property
    def fingerprint(self) -> str:
        """Hash of the data in their order."""
        return fingerprint(self.args)

    def rows(self, index: Any) -> tuple[Tensor, ...]:
        """The arguments of the programs for some of the data, on the device."""
        return tuple(arg[index].to(self.device) for arg in self.args)

    def pieces(
        self, num_particles: int, per_datum: int = 0, *, in_cache: bool = False
    ) -> tuple[int, int]:
        """(data, particles) that one piece of work may hold; ``per_datum`` bytes are held for each datum besides.

        With ``in_cache`` a piece is small on CPU, for programs that run as they are: a compiled graph cuts it anyway.
        """
        small = in_cache and self.device.type == "cpu"
        budget = min(self.memory_budget, _CACHED) if small else self.memory_budget
        rows = max(1, budget // self.bytes_per_particle)
        particles = min(num_particles, 4 * BLOCK)
        if rows < particles:
            particles = min(num_particles, max(BLOCK, rows // BLOCK * BLOCK))
        data = max(1, rows // particles)
        if per_datum:
            data = min(data, max(1, self.memory_budget // per_datum))
        return data, particles

    def expect(
        self, num_particles: int, pieces: tuple[int, int], compile: bool | Literal["auto"]
    ) -> None:
        """Prepare for ``num_particles`` of every datum in pieces of (data, particles): compile what is large."""
        large = pays_back(self.bytes_per_particle * num_particles * self.num_data)
        if self.tiles is None and (compile is True or (compile == "auto" and large)):
            self.tiles = Tiles(
                self.model,
                pieces,
                self.bytes_per_particle,
                self.device,
                compile=True if compile is True else None,
                total=num_particles * self.num_data,
            )

    def encode(self, index: Any) -> "Encoded":
        """Run the guide once on some of the data."""
        args = self.rows(index)
        return Encoded(self, args, self.keys[index], encode(self.guide, args))

    @contextmanager
    def session(self, *, grad: bool = False) -> Iterator[None]:
        """Eval mode, no gradients, validation off, random state put back afterwards."""
        devices = [self.device] if self.device.type == "cuda" else []
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=devices))
            stack.enter_context(evaluation_mode(self.model, self.guide))
            stack.enter_context(torch.set_grad_enabled(grad))
            stack.enter_context(pyro.validation_enabled(False))
            yield

    def inspect(
        self, *, density: bool = True, enumerate: Enumerate = False, num_draws: int = 1
    ) -> None:
        """One particle of every datum under validation, then the memory that a particle takes.

        Args:
            density: Whether the guide must have one.
            enumerate: Whether discrete sites are to be summed out from here on; ``"auto"`` if that costs little.
            num_draws: The most particles that a datum may get.

        Raises:
            ValueError: If the programs refuse the data, are scaled, or have a guide without a density; if discrete
                sites must be summed and cannot be.
        """
        size, found = self._inspection_size(), []
        options: dict[str, Any] = {"max_plate_nesting": self.max_plate_nesting}
        self.summed, self.exact, self.notes = None, False, {}
        with pyro.validation_enabled(True):
            for start in range(0, self.num_data, size):
                args = self.rows(part := slice(start, start + size))
                with DatumStreams(self.keys[part], 1, axis=self.max_plate_nesting):
                    particles = draw(
                        self.model, self.guide, 1, args, complete=enumerate is not False, **options
                    )
                self._check(particles, density)
                finite_log_weights(particles.log_weights)
                if enumerate is not False:
                    found.append(find_supports(particles))
        self.num_dims, self.discrete = particles.num_dims, particles.discrete
        if any(supports or reasons for supports, reasons in found):
            self._sum_out(*choose(found, particles, enumerate, num_draws), particles)
        if set(particles.completed) - set(self.summed.values if self.summed else ()):
            draw(
                self.model, self.guide, 1, self.rows(slice(0, 1)), **options
            )  # says what the guide lacks
        self.bytes_per_particle = self._bytes_per_particle()

    def _sum_out(
        self, summed: SummedSites | None, drawn: dict[str, str], particles: Particles
    ) -> None:
        self.exact = summed is not None and set(summed.values) == set(particles.latents)
        self.notes = describe(summed, drawn, self.exact)
        if summed is not None:
            summed = lay_out_values(self, summed)
            self.summed = summed.first(1)
            self.summed = cut(self, summed, self._bytes_per_particle())

    def _bytes_per_particle(self) -> int:
        num_data, num_particles = (1, 1) if self.exact else (min(4, self.num_data), 8)
        encoded = self.encode(slice(0, num_data))
        with _Bytes() as counter:
            encoded.draw(num_particles).log_weights  # noqa: B018
        return max(1, math.ceil(counter.total / (num_data * num_particles)))

    def _inspection_size(self) -> int:
        width = sum(arg[0].numel() * arg.element_size() for arg in self.args)
        return max(1, min(self.num_data, self.memory_budget // (64 * max(width, 1))))

    def _check(self, particles: Particles, density: bool) -> None:
        if particles.scaled:
            raise ValueError(
                "A handler scales the programs (KLScale or poutine.scale with a factor other than 1). "
                "beta belongs to training: pass model and guide without it."
            )
        for site in particles.latents.values():
            fn = site.posterior
            while hasattr(fn, "base_dist"):
                fn = fn.base_dist
            if density and isinstance(fn, Delta):
                raise ValueError(
                    f"The guide's site '{site.name}' is a Delta: a point has no density over z, so no weight and "
                    "no evidence follow from it. Train a guide with a density (posteriors.DiagonalNormal), or use "
                    'AIS(start="prior") with such a guide.'
                )


@dataclass
class Encoded:
    """Some of the data, with the guide's one run on them."""

    problem: Problem
    args: tuple[Tensor, ...]
    keys: np.ndarray
    trace: Any

    def draw(self, num_particles: int, start: int = 0) -> Particles:
        """Particles ``start`` to ``start + num_particles`` of each datum, from its own stream."""
        with DatumStreams(self.keys, num_particles, start, axis=self.problem.max_plate_nesting):
            return self.draw_here(num_particles)

    def log_weights(self, num_particles: int, start: int = 0) -> Tensor:
        """``(K, B)``: those of :meth:`draw`; the model's part by the problem's graph where it has one."""
        problem, tiles = self.problem, self.problem.tiles
        if (
            tiles is None
            or self.trace is None
            or problem.summed is not None
            or not tiles.serve(len(self.keys))
        ):
            return self.draw(num_particles, start).log_weights
        nesting = problem.max_plate_nesting
        streams = DatumStreams(self.keys, num_particles, start, axis=nesting)
        if (normal := encoded_normal(self.trace)) is not None:
            _, loc, _, event_dim = normal
            singleton = (1,) * (nesting + event_dim - loc.dim())
            noise = streams.normal(loc.expand(num_particles, *singleton, *loc.shape))
            log_w = tiles.log_weights(normal, noise, self.args, nesting)
        else:
            with streams:
                name, value, log_q = draw_latent(
                    self.trace, num_particles, max_plate_nesting=nesting
                )
            log_p = tiles.log_p(name, value, self.args, nesting)
            log_w = None if log_p is None else log_p - log_q
        return self.draw(num_particles, start).log_weights if log_w is None else log_w

    def draw_here(self, num_particles: int) -> Particles:
        """Particles from the guide, by whatever random streams are active."""
        model, guide, nesting = (
            self.problem.model,
            self.problem.guide,
            self.problem.max_plate_nesting,
        )
        if self.problem.summed is not None:
            return self.draw_summed_here(num_particles, self.problem.summed)
        if self.trace is None:
            return draw(model, guide, num_particles, self.args, max_plate_nesting=nesting)
        return draw_encoded(model, self.trace, num_particles, self.args, max_plate_nesting=nesting)

    def draw_summed_here(
        self, num_particles: int, summed: SummedSites, *, from_prior: bool = False
    ) -> Particles:
        """As :meth:`draw_here` or :meth:`draw_prior_here`, with discrete sites summed out."""
        return draw_summed(
            self.problem.model,
            None if from_prior else self.problem.guide,
            num_particles,
            summed,
            self.args,
            num_data=len(self.keys),
            encoded=None if from_prior else self.trace,
            max_plate_nesting=self.problem.max_plate_nesting,
        )

    def score(self, values: dict[str, Tensor], *, guide: bool = True) -> Particles:
        """Score values ``(K, B, *event)`` of each site that is drawn; without the guide, ``log_q`` is ``log_prior``."""
        problem = self.problem
        programs = problem.model, problem.guide if guide else None
        common = {
            "encoded": self.trace if guide else None,
            "max_plate_nesting": problem.max_plate_nesting,
        }
        if problem.summed is None:
            return score_values(*programs, values, self.args, **common)
        num_particles = len(next(iter(values.values())))
        return score_values_summed(
            *programs,
            values,
            problem.summed,
            self.args,
            num_particles=num_particles,
            num_data=len(self.keys),
            **common,
        )

    def score_values(self, values: dict[str, Tensor], num_particles: int) -> Particles:
        """Score one value ``(B, *event)`` of each latent site, the same for all particles."""
        return self.score(lay_out(values, self.draw_here(1), num_particles))

    def draw_prior(self, num_particles: int, start: int = 0) -> Particles:
        """As :meth:`draw`, but from the model's prior, with the guide's density beside."""
        nesting = self.problem.max_plate_nesting
        with DatumStreams(further(self.keys, 21), num_particles, start, axis=nesting):
            drawn = self.draw_prior_here(num_particles)
        return self.score({name: site.value for name, site in drawn.latents.items()})

    def select(self, index: Tensor) -> "Encoded":
        """Some of these data; their guide runs again."""
        problem, chosen = self.problem, index.cpu().numpy()
        args = tuple(arg[index] for arg in self.args)
        if hasattr(problem.guide, "select"):
            problem = copy.copy(problem)
            problem.guide = problem.guide.select(index)
        return Encoded(problem, args, self.keys[chosen], encode(problem.guide, args))

    def draw_prior_here(self, num_particles: int) -> Particles:
        """Particles from the model's prior, by whatever random streams are active."""
        nesting = self.problem.max_plate_nesting
        if self.problem.summed is not None:
            return self.draw_summed_here(num_particles, self.problem.summed, from_prior=True)
        return draw_prior(self.problem.model, num_particles, self.args, max_plate_nesting=nesting)


def lay_out(values: dict[str, Tensor], like: Particles, num_particles: int) -> dict[str, Tensor]:
    """One value ``(B, *event)`` of each site, repeated for all particles in the layout of drawn ones."""
    laid = {}
    for name, site in like.latents.items():
        shape = site.value.shape[1:]
        value = values[name].to(device=site.value.device, dtype=site.value.dtype)
        laid[name] = value.reshape(1, *shape).expand(num_particles, *shape).clone()
    return laid


def finite_log_weights(log_w: Tensor) -> Tensor:
    """The log weights, once none of them is NaN or plus infinity."""
    if not bool((log_w < math.inf).all()):
        count = int((~(log_w < math.inf)).sum())
        raise ValueError(
            f"{count} of {log_w.numel()} log weights are NaN or infinite. The programs give no density there: "
            "look at the parameters (a training that diverged?) and at the data's scale."
        )
    return log_w


class _Bytes(TorchDispatchMode):
    """Adds up the bytes of all tensors made while active, views apart."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # as DatumStreams

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


def prepare(
    model: Program,
    guide: Program,
    data: Any,
    *,
    seed: int = 0,
    memory_budget: int | None = None,
    device: Any = None,
    max_plate_nesting: int = 1,
    progress: bool = False,
) -> Problem:
    """Check data and settings, as :func:`~pyrovae.evidence.log_marginal` takes them, and make a problem of them.

    Raises:
        TypeError: If the data are no arrays, or the seed no integer.
        ValueError: If the data are empty, of unequal lengths, or not finite, or a setting is out of range.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(f"seed must be an integer, found {seed!r}.")
    if memory_budget is not None and memory_budget < 1:
        raise ValueError(
            f"memory_budget must be a positive number of bytes, found {memory_budget}."
        )
    if isinstance(max_plate_nesting, bool) or max_plate_nesting < 1:
        raise ValueError(
            f"max_plate_nesting must be at least 1 (the data plate), found {max_plate_nesting}."
        )
    like = next(
        (p for m in modules_of(model, guide) for p in m.parameters() if p.is_floating_point()), None
    )
    args = tuple(
        _as_tensor(v, i, like) for i, v in enumerate(data if isinstance(data, tuple) else (data,))
    )
    if not args:
        raise ValueError(
            "There are no data: found an empty tuple. Pass an array, or a tuple of arrays."
        )
    lengths = [len(arg) for arg in args]
    if len(set(lengths)) > 1:
        raise ValueError(
            f"The data arrays have unequal lengths {lengths}; their first dimension counts the data."
        )
    if lengths[0] == 0:
        raise ValueError(
            f"The data set is empty: found shape {tuple(args[0].shape)}, expected at least one datum."
        )
    if device is None:
        device = like.device if like is not None else args[0].device
    device = torch.device(device)
    if like is not None and like.device.type != device.type:
        raise ValueError(
            f"The programs' parameters are on {like.device}, the device asked for is {device}. "
            "Move them first: vae.to(device)."
        )
    if memory_budget is None:
        memory_budget = 256 * _MEBIBYTE if device.type == "cpu" else 4096 * _MEBIBYTE
    return Problem(
        model=model,
        guide=guide,
        args=args,
        device=device,
        seed=int(seed),
        max_plate_nesting=max_plate_nesting,
        memory_budget=int(memory_budget),
        progress=progress,
    )


def _as_tensor(value: Any, place: int, like: Tensor | None) -> Tensor:
    try:
        tensor = torch.as_tensor(value)
    except Exception as error:
        raise TypeError(
            f"Argument {place} of the programs must be an array or tensor, found {type(value).__name__} ({error})."
        ) from error
    if tensor.dim() == 0:
        raise ValueError(
            f"Argument {place} of the programs is a single number; its first dimension counts the data."
        )
    if tensor.is_floating_point():
        bad = ~torch.isfinite(tensor)
        if bad.any():
            rows = bad.reshape(len(tensor), -1).any(1).nonzero().flatten()
            raise ValueError(
                f"Argument {place} of the programs holds {int(bad.sum())} NaN or infinite values, the first in datum "
                f"{int(rows[0])}. Remove those data, or hand a mask to the programs and fill the gaps with any number."
            )
        if like is not None:
            tensor = tensor.to(like.dtype)
    return tensor.detach()
