"""Importance weights until a target standard error, as a pilot predicts their number."""

from collections.abc import Iterator

import torch
from torch import Tensor

from pyrovae.evidence.plan import Plan
from pyrovae.evidence.sampler import Sampler
from pyrovae.evidence.streams import BLOCK
from pyrovae.weights import RunningWeights

__all__ = ["weigh_to_target"]

_MARGIN = 0.7  # share of the target that is aimed at, since a pilot's error is itself uncertain
_PILOT = 4  # a pilot may ask for at most so many times its own number of weights


def weigh_to_target(
    sampler: Sampler,
    plan: Plan,
    *,
    target: float,
    num_particles: int,
    max_particles: int,
) -> RunningWeights:
    """Weights of each datum, as many as the standard error of a pilot asks for.

    The pilot starts with ``num_particles`` and doubles while it predicts more than four times its
    own number. The weights that are returned are drawn afterwards, from other random numbers, and
    the pilot's are dropped. Their number therefore does not depend on their values, and their mean
    is unbiased. Data whose error stays above the target get no further weights: those would depend
    on the first ones.

    Args:
        sampler: Some of the data.
        plan: The plan of the work.
        target: Standard error in nats.
        num_particles, max_particles: The least and the most weights of a datum.
    """
    pilot = RunningWeights(len(sampler), max_particles, plan.device)
    for log_w in sampler.weight_chunks(num_particles, plan.num_particles):
        pilot.update(log_w)

    def predicted() -> Tensor:
        enough = pilot.count * (pilot.standard_error / (_MARGIN * target)).square()
        ratio = (enough / num_particles).nan_to_num(nan=1.0, posinf=1.0).clamp_min(1.0)
        return (num_particles * 2.0 ** ratio.log2().ceil()).clamp_max(max_particles).long()

    while (short := _PILOT * pilot.count < predicted()).any():
        _extend(sampler, plan, pilot, torch.where(short, pilot.count, 0), origin=0)
    running = RunningWeights(len(sampler), max_particles, plan.device)
    _extend(sampler, plan, running, predicted(), origin=max_particles)
    return running


def _extend(
    sampler: Sampler, plan: Plan, running: RunningWeights, new: Tensor, *, origin: int
) -> None:
    """Add ``new`` weights ``(B,)`` of each datum, from particle ``origin`` of its stream on."""
    for num, start, alike in _groups(new, running.count):
        num_data, num_particles = plan.cut(num)
        first = _in_blocks(origin) + _in_blocks(start)
        for chosen in alike.split(num_data):
            part = running.select(chosen)
            for log_w in sampler.select(chosen).weight_chunks(num, num_particles, first):
                part.update(log_w)
            running.replace(chosen, part)


def _groups(new: Tensor, count: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """(number of new weights, number of old ones, data) for all data with new weights."""
    for num, start in torch.stack([new, count], 1).unique(dim=0).tolist():
        if num:
            yield num, start, ((new == num) & (count == start)).nonzero().flatten()


def _in_blocks(num: int) -> int:
    """The number rounded up to a multiple of ``BLOCK``, at which a piece of a stream may start."""
    return -(-num // BLOCK) * BLOCK
