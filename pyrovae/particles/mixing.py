"""Find programs that mix particles: that run with several, but not as with one."""

from typing import Any

import torch
from torch import Tensor

from pyrovae.particles.drawing import draw
from pyrovae.particles.result import Particles
from pyrovae.particles.running import nesting_of
from pyrovae.particles.trial import remember, runs_separately
from pyrovae.programs import Program


def find_mixing(
    model: Program, guide: Program, args: tuple, *, max_plate_nesting: int | None = None
) -> None:
    """Score a few particles together and one by one, at the same values. Programs whose scores
    differ run once for each particle from now on, with a warning.

    With a dimension of particles in front, a layer such as ``softmax(dim=1)`` or ``mean(0)`` works
    on another dimension than with one particle, and raises no error. Random states stay as they
    are. What cannot be tried is left alone, such as programs that draw numbers outside of their
    sites.

    Args:
        args: A few data. The programs should be in evaluation mode.
        max_plate_nesting: Batch dimensions that the programs use themselves; None to find out.
    """
    if runs_separately(model) and runs_separately(guide):
        return
    data = next((arg for arg in args if isinstance(arg, Tensor) and arg.dim()), torch.zeros(1))
    num = 2 if len(data) == 3 else 3  # no size that the data have as well
    nesting = max_plate_nesting or nesting_of(guide, model, args=args, kwargs={})
    known: dict[str, Any] = {"max_plate_nesting": nesting}
    devices = [data.device] if data.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices):
        together = draw(model, guide, num, args, complete=True, **known)
        if together.completed:
            return
        known |= {"values": together.random_values, "plate": False}
        try:
            apart, again = (draw(model, guide, num, args, **known) for _ in range(2))
        except Exception:  # without the dimension of particles it does not run at all
            return
    for program, score in ((guide, _log_q), (model, _log_p)):
        scores = [score(particles) for particles in (together, apart, again)]
        if _agree(*scores[1:]) and not _agree(*scores[:2]):
            remember(program, num)


def _log_q(particles: Particles) -> Tensor:
    return particles.log_q + particles.log_auxiliary


def _log_p(particles: Particles) -> Tensor:
    return particles.log_p


def _agree(one: Tensor, other: Tensor) -> bool:
    """Whether scores are equal but for rounding."""
    rounding = torch.finfo(one.dtype).eps ** 0.5
    return torch.allclose(one, other, rtol=rounding, atol=rounding, equal_nan=True)
