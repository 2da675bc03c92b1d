"""The model's density of many particles by one compiled graph of fixed shape, tile after tile."""

import math
from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import Normal
from torch import Tensor

from pyrovae.compilation.graphs import Engine
from pyrovae.particles import over_plates, score_values

__all__ = ["Tiles"]

CACHE = (
    32 * 2**20
)  # bytes that a tile's run may write on CPU: more, and what it writes leaves the cache
_FULLNESS = 0.5  # of a tile's data; with fewer, padding would cost more than the graph saves


class Tiles:
    """Runs a model at given latent values as a captured graph.

    All runs have one shape, particles by data, and are padded where less is left: so a single compilation serves
    the whole of the work, and on CPU the tile is small enough for intermediate results to stay in the cache.

    Args:
        model: A Pyro program of one latent site.
        shape: Data and particles of a piece of work.
        bytes_per_particle: What one particle of one datum writes.
        device: Where the model runs.
        compile: Whether Inductor must compile; None decides by how often the graph will run.
        total: Particles in all, those of every datum together.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        shape: tuple[int, int],
        bytes_per_particle: int,
        device: torch.device,
        *,
        compile: bool | None,
        total: int,
    ):
        self.model = model
        self.data, most = shape
        if device.type == "cpu":
            pieces = math.ceil(most / max(1, CACHE // (bytes_per_particle * self.data)))
            most = math.ceil(most / min(pieces, most))
        self.particles = most
        runs = math.ceil(total / (self.data * self.particles))
        self.engine = Engine(model, compile="auto" if compile is None else compile, steps=runs)

    def serve(self, num_data: int) -> bool:
        """Whether so many data are worth a run."""
        return self.engine.enabled and _FULLNESS * self.data <= num_data <= self.data

    def log_p(self, name: str, value: Tensor, args: tuple[Tensor, ...], axis: int) -> Tensor | None:
        """``(K, B)`` log p(x, z) at values ``(K, ..., B, *event)`` of a site, the data at ``axis``.

        None where the model makes no fixed graph, or draws sites of its own, which a graph would not take from the
        data's streams.
        """

        def joint(value: Tensor, *args: Tensor) -> Tensor:
            return score_values(self.model, None, {name: value}, args, max_plate_nesting=axis).log_p

        return self._run(name, joint, value, [(arg, 0) for arg in args], axis)

    def log_weights(
        self,
        normal: tuple[str, Tensor, Tensor, int],
        noise: Tensor,
        args: tuple[Tensor, ...],
        axis: int,
    ) -> Tensor | None:
        """``(K, B)`` log weights of draws from a normal guide, of standard normal noise; else as :meth:`log_p`.

        Args:
            normal: As :func:`~pyrovae.particles.encoded_normal` gives it.
        """
        name, loc, scale, event_dim = normal

        def weigh(noise: Tensor, loc: Tensor, scale: Tensor, *args: Tensor) -> Tensor:
            value = loc + scale * noise
            log_q = Normal(loc, scale, validate_args=False).to_event(event_dim).log_prob(value)
            particles = score_values(self.model, None, {name: value}, args, max_plate_nesting=axis)
            return particles.log_p - over_plates(log_q)

        place = loc.dim() - event_dim - 1
        tensors = [(loc, place), (scale, place), *((arg, 0) for arg in args)]
        return self._run((name, event_dim), weigh, noise, tensors, axis)

    def _run(
        self,
        key: Any,
        function: Callable[..., Tensor],
        drawn: Tensor,
        others: list[tuple[Tensor, int]],
        axis: int,
    ) -> Tensor | None:
        """A function of draws ``(K, ..., B, *event)`` and of other tensors, with where their data lie, by tiles."""

        def without_gradients(*tensors: Tensor) -> tuple[Tensor]:
            with torch.no_grad():
                return (function(*tensors),)

        num_data = drawn.shape[axis]
        filled = [_filled(tensor, place, self.data) for tensor, place in others]
        found = []
        for part in drawn.split(self.particles):
            tile = _filled(_filled(part, axis, self.data), 0, self.particles)
            graph = self.engine.graph(without_gradients, (tile, *filled), name=key)
            if graph is None or graph.draws:
                return None
            found.append(graph(tile, *filled)[0][: len(part), :num_data].clone())
        return torch.cat(found)


def _filled(tensor: Tensor, axis: int, size: int) -> Tensor:
    """Made ``size`` long along an axis by repeating the last entry, in the plain layout."""
    missing = size - tensor.shape[axis]
    if missing:
        last = tensor.narrow(axis, tensor.shape[axis] - 1, 1)
        repeated = [*tensor.shape[:axis], missing, *tensor.shape[axis + 1 :]]
        tensor = torch.cat([tensor, last.expand(repeated)], axis)
    return tensor.contiguous()
