"""Score particles by one captured graph of fixed shape, tile after tile."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from pyro.distributions import Normal
from torch import Tensor

from pyrovae.compilation import Compiled, Graph
from pyrovae.compilation import compile as compiled
from pyrovae.evidence import counters
from pyrovae.evidence.streams import DatumStreams
from pyrovae.particles import over_plates, score_values

__all__ = ["Tiles"]

CACHE = 32 * 2**20
"""Bytes that the run of a tile may write on CPU, so that they stay in the cache."""

_FULLNESS = 0.5  # share of a tile's data; with fewer, padding costs more than the graph saves


class Tiles:
    """Runs a model at given latent values as a captured graph.

    All runs have one shape, particles by data. Where less is left, the rest is padding. So the
    graph is compiled once for all of the work. On CPU a tile is small enough for its intermediate
    results to stay in the cache.

    Args:
        model: A Pyro program of one latent site.
        shape: Data and particles of a piece of work.
        bytes_per_particle: Bytes that one particle of one datum writes.
        device: Where the model runs.
        compile: Whether Inductor compiles the graph. ``"auto"`` decides by how often the graph will
            run.
        total: Particles of all data together.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        shape: tuple[int, int],
        bytes_per_particle: int,
        device: torch.device,
        *,
        compile: bool | Literal["auto"],
        total: int,
    ):
        self.model = model
        self.data, most = shape
        if device.type == "cpu":
            pieces = math.ceil(most / max(1, CACHE // (bytes_per_particle * self.data)))
            most = math.ceil(most / min(pieces, most))
        self.particles = most
        self.compile: bool | Literal["auto"] = compile
        self.runs = math.ceil(total / (self.data * self.particles))
        self._functions: dict[Any, Compiled] = {}

    @property
    def graphs(self) -> list[Graph]:
        """The graphs captured so far."""
        return [graph for function in self._functions.values() for graph in function.graphs]

    @property
    def compile_seconds(self) -> float:
        """Time spent in Inductor."""
        return sum(function.compile_seconds for function in self._functions.values())

    def serves(self, num_data: int) -> bool:
        """Whether a run pays for so many data."""
        if not all(function.enabled for function in self._functions.values()):
            return False
        return _FULLNESS * self.data <= num_data <= self.data

    def log_p(self, name: str, value: Tensor, args: tuple[Tensor, ...], axis: int) -> Tensor | None:
        """``(K, B)`` log p(x, z) at values ``(K, ..., B, *event)`` of a site whose data lie at
        ``axis``.

        None where the model gives no fixed graph, or draws random numbers. A graph would not take
        those from the streams of the data.
        """

        def joint(value: Tensor, *args: Tensor) -> Tensor:
            return score_values(self.model, None, {name: value}, args, max_plate_nesting=axis).log_p

        tensors = [(arg, 0) for arg in args]
        return self._run(name, joint, value, tensors, value.shape[axis], axis)

    def log_weights(
        self,
        normal: tuple[str, Tensor, Tensor, int],
        streams: DatumStreams,
        args: tuple[Tensor, ...],
        axis: int,
    ) -> Tensor | None:
        """``(K, B)`` log weights of draws from a normal guide, which the graph makes itself; None
        as in :meth:`log_p`.

        Args:
            normal: As :func:`~pyrovae.particles.encoded_normal` gives it.
            streams: Where random numbers come from.
        """
        name, loc, scale, event_dim = normal
        place = loc.dim() - event_dim - 1
        rest = [1] * (axis - 1 - place) + [n for i, n in enumerate(loc.shape) if i != place]
        num_words = counters.num_words(math.prod(rest), loc.dtype)

        def weigh(
            counted: Tensor, keys: Tensor, loc: Tensor, scale: Tensor, *args: Tensor
        ) -> Tensor:
            noise = counters.normal(keys, counted, rest, loc.dtype).movedim(1, axis)
            value = loc + scale * noise
            log_q = Normal(loc, scale, validate_args=False).to_event(event_dim).log_prob(value)
            particles = score_values(self.model, None, {name: value}, args, max_plate_nesting=axis)
            return particles.log_p - over_plates(log_q)

        keys, counted = streams.numbered(num_words, loc.device)
        tensors = [(keys, 0), (loc, place), (scale, place), *((arg, 0) for arg in args)]
        return self._run((name, event_dim), weigh, counted, tensors, len(keys))

    def _run(
        self,
        key: Any,
        function: Callable[..., Tensor],
        particles: Tensor,
        others: list[tuple[Tensor, int]],
        num_data: int,
        axis: int | None = None,
    ) -> Tensor | None:
        """Apply a function of a tensor with K particles in front, and others, tile by tile.

        ``axis`` is the dimension of the data in the former, if it has one; ``others`` holds each
        further tensor with the dimension of its data.
        """

        if key not in self._functions:
            self._functions[key] = compiled(
                torch.no_grad()(function),
                settings=(self.model,),
                random=False,
                backend=self.compile,
                calls=self.runs,
                background=False,  # all data are scored alike
            )
        tiled = self._functions[key]
        filled = [_filled(tensor, place, self.data) for tensor, place in others]
        found = []
        with tiled.guarded():  # no setting changes between tiles
            for part in particles.split(self.particles):
                tile = part if axis is None else _filled(part, axis, self.data)
                log_probs = tiled(_filled(tile, 0, self.particles), *filled)
                if not tiled.enabled:
                    return None
                found.append(log_probs[: len(part), :num_data])
        return torch.cat(found)


def _filled(tensor: Tensor, axis: int, size: int) -> Tensor:
    """The tensor, contiguous, made ``size`` long along an axis by repeating its last entry."""
    missing = size - tensor.shape[axis]
    if missing:
        last = tensor.narrow(axis, tensor.shape[axis] - 1, 1)
        repeated = [*tensor.shape[:axis], missing, *tensor.shape[axis + 1 :]]
        tensor = torch.cat([tensor, last.expand(repeated)], axis)
    return tensor.contiguous()
