"""Draw and score particles of some data, each datum from its own random stream."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.evidence.proposal import DiagonalGuide
from pyrovae.evidence.streams import DatumStreams, mix_keys
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
    score_values,
    score_values_summed,
)
from pyrovae.programs import Program

__all__ = ["Sampler", "check_log_weights", "repeat_values"]

_PRIOR_STREAM = 21


@dataclass(frozen=True)
class Sampler:
    """Particles of B data and their weights.

    A sampler of all data is cheap. :meth:`select` gives the sampler of some of them, which runs the
    guide once when it first needs it.

    Attributes:
        model, guide: The two programs.
        args: Arguments of both programs, each with one leading dimension B.
        keys: ``(B,)`` random streams of the data.
        device: Where the programs run.
        max_plate_nesting: Number of batch dimensions that the programs use themselves.
        summed: Discrete sites that are summed out. Particles then hold the other sites only.
        scorer: Computes log weights by a captured graph. Without one, the programs run as they are.
    """

    model: Program
    guide: Program
    args: tuple[Tensor, ...]
    keys: np.ndarray
    device: torch.device
    max_plate_nesting: int = 1
    summed: SummedSites | None = None
    scorer: Tiles | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def select(self, index: Any) -> "Sampler":
        """The sampler of some of these data: a slice, an integer array, or an integer tensor."""
        args = tuple(arg[index].to(self.device) for arg in self.args)
        keys = self.keys[index.cpu().numpy() if isinstance(index, Tensor) else index]
        guide = self.guide.select(index) if isinstance(self.guide, DiagonalGuide) else self.guide
        return replace(self, guide=guide, args=args, keys=keys)

    @cached_property
    def encoded(self) -> Any:
        """Trace of one run of the guide, or None for a guide that must run for every particle."""
        return encode(self.guide, self.args)

    def streams(
        self, num_particles: int, start: int = 0, *, salt: int | None = None
    ) -> DatumStreams:
        """Random numbers of particles ``start`` to ``start + num_particles``; another ``salt``,
        other numbers.
        """
        keys = self.keys if salt is None else mix_keys(self.keys, salt)
        return DatumStreams(keys, num_particles, start, axis=self.max_plate_nesting)

    def draw(
        self, num_particles: int, start: int = 0, *, streams: DatumStreams | None = None
    ) -> Particles:
        """Draw particles from the guide and score them under both programs."""
        encoded = self.encoded  # before the streams are active, since that run draws too
        with streams or self.streams(num_particles, start):
            if self.summed is not None:
                return self._draw_summed(num_particles, self.summed, from_prior=False)
            common: dict[str, Any] = {"max_plate_nesting": self.max_plate_nesting}
            if encoded is None:
                return draw(self.model, self.guide, num_particles, self.args, **common)
            return draw_encoded(self.model, encoded, num_particles, self.args, **common)

    def draw_prior(
        self, num_particles: int, start: int = 0, *, streams: DatumStreams | None = None
    ) -> Particles:
        """Draw particles from the model's prior; ``log_q`` is ``log_prior``."""
        with streams or self.streams(num_particles, start, salt=_PRIOR_STREAM):
            if self.summed is not None:
                return self._draw_summed(num_particles, self.summed, from_prior=True)
            return draw_prior(
                self.model, num_particles, self.args, max_plate_nesting=self.max_plate_nesting
            )

    def _draw_summed(
        self, num_particles: int, summed: SummedSites, *, from_prior: bool
    ) -> Particles:
        return draw_summed(
            self.model,
            None if from_prior else self.guide,
            num_particles,
            summed,
            self.args,
            num_data=len(self),
            encoded=None if from_prior else self.encoded,
            max_plate_nesting=self.max_plate_nesting,
        )

    def score(self, values: dict[str, Tensor], *, guide: bool = True) -> Particles:
        """Score values ``(K, B, *event)`` of each site that is drawn; gradients flow to them.

        Args:
            guide: Whether to score them under the guide too. Without, ``log_q`` is ``log_prior``.
        """
        programs = self.model, self.guide if guide else None
        common: dict[str, Any] = {
            "encoded": self.encoded if guide else None,
            "max_plate_nesting": self.max_plate_nesting,
        }
        if self.summed is None:
            return score_values(*programs, values, self.args, **common)
        sizes = {"num_particles": len(next(iter(values.values()))), "num_data": len(self)}
        return score_values_summed(*programs, values, self.summed, self.args, **sizes, **common)

    def log_weights(self, num_particles: int, start: int = 0) -> Tensor:
        """``(K, B)`` log weights of :meth:`draw`, from the scorer where there is one.

        Raises:
            ValueError: If one is NaN or plus infinity.
        """
        found, scorer = None, self.scorer if self.summed is None else None
        if scorer is not None and scorer.serves(len(self)) and self.encoded is not None:
            found = self._score_by_graph(scorer, num_particles, start)
        if found is None:
            found = self.draw(num_particles, start).log_weights
        return check_log_weights(found)

    def weight_chunks(self, num_particles: int, size: int, start: int = 0) -> Iterator[Tensor]:
        """:meth:`log_weights` of so many particles, at most ``size`` of them at a time."""
        for first in range(0, num_particles, size):
            yield self.log_weights(min(size, num_particles - first), start + first)

    def _score_by_graph(self, scorer: Tiles, num_particles: int, start: int) -> Tensor | None:
        axis, streams = self.max_plate_nesting, self.streams(num_particles, start)
        if (normal := encoded_normal(self.encoded)) is not None:
            return scorer.log_weights(normal, streams, self.args, axis)
        with streams:
            name, value, log_q = draw_latent(self.encoded, num_particles, max_plate_nesting=axis)
        log_p = scorer.log_p(name, value, self.args, axis)
        return None if log_p is None else log_p - log_q


def repeat_values(
    values: dict[str, Tensor], like: Particles, num_particles: int
) -> dict[str, Tensor]:
    """One value ``(B, *event)`` of each site, repeated for all particles in the layout of drawn
    ones.

    Raises:
        ValueError: If the guide's density is one of auxiliary values, which are not known for given
            latent values.
    """
    if like.mapped:
        raise ValueError(
            f"The guide computes latent sites from its auxiliary sites {list(like.auxiliary)}, "
            "whose values for simulated data are not known. Take AIS(start='prior')."
        )
    repeated = {}
    for name, site in like.latents.items():
        shape = site.value.shape[1:]
        value = values[name].to(device=site.value.device, dtype=site.value.dtype)
        repeated[name] = value.reshape(1, *shape).expand(num_particles, *shape).clone()
    return repeated


def check_log_weights(log_w: Tensor) -> Tensor:
    """The log weights.

    Raises:
        ValueError: If one is NaN or plus infinity.
    """
    if not bool((log_w < math.inf).all()):
        count = int((~(log_w < math.inf)).sum())
        raise ValueError(
            f"{count} of {log_w.numel()} log weights are NaN or infinite: the programs give no "
            "density there. Check that training did not diverge, and that the data are on the "
            "scale of the training data."
        )
    return log_w
