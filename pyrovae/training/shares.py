"""An objective on some rows of a batch, with the random numbers of the whole batch."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from pyrovae.objective import Evaluation, Objective, Report, clipped, laid_out
from pyrovae.programs import undisturbed
from pyrovae.training.draws import Layout, Place, SharedDraws, draw_layouts

__all__ = ["Share"]

_CLOSE = 1e-3
"""Relative difference of two gradients in single precision that is more than rounding."""


class Share:
    """What one process adds to the loss and the gradients of a batch, as one flat tensor.

    The flat tensors of all processes add up to those of the batch: gradients of the mean over all
    its data, then the report, then the loss. So a single collective operation joins them.

    Args:
        objective: Without a norm to clip at, since that is the norm of the sum.
        clip_norm, clip_value: Largest norm, and largest absolute element, of the joined gradients.
        around: Makes what surrounds each evaluation, such as rounded networks.
        gradients: False evaluates the bound alone.
    """

    def __init__(
        self,
        objective: Objective,
        *,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        around: Callable[[], AbstractContextManager] = nullcontext,
        gradients: bool = True,
    ):
        self.around = around
        self.objective, self.clip_norm, self.clip_value = objective, clip_norm, clip_value
        self.parameters = objective.parameters if gradients else []
        self.gradients = gradients
        # Whether beta scales: an ELBO of Pyro's own then evaluates the programs once more.
        self.layouts: dict[bool, list[Layout | None]] = {}
        self.apart = False  # whether a sampler drew other numbers than one process would
        self._compared = not gradients

    def __call__(
        self, beta: Tensor | None, place: Place, *rows: Tensor
    ) -> tuple[Tensor, tuple[bool, ...]]:
        """The flat tensor, and which parameters have a gradient."""
        with self.around():
            return self._evaluate(beta, place, rows)

    def _evaluate(
        self, beta: Tensor | None, place: Place, rows: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[bool, ...]]:
        with SharedDraws(self.layouts[beta is not None], place) as draws:
            if self.gradients:
                report, loss, gradients = self.objective(beta, *rows)
            else:
                (report, loss), gradients = self.objective.report(beta, *rows), []
        self.apart |= draws.apart
        weight, share = place.num / place.total / place.copies, 1 / place.copies
        numbers = [*(value * share for value in report), loss * weight]
        flat = [(g * weight).reshape(-1) for g in gradients if g is not None]
        # Sums over a batch want single precision at least, whatever the networks have.
        kind = torch.promote_types(numbers[0].dtype, torch.float32)
        flat.append(torch.stack([number.to(kind) for number in numbers]))
        return torch.cat(flat), tuple(g is not None for g in gradients)

    def whole(self, flat: Tensor, present: Sequence[bool]) -> Evaluation:
        """The evaluation of the batch, from the sum of all flat tensors."""
        used = [p for p, there in zip(self.parameters, present, strict=True) if there]
        *pieces, numbers = flat.split([*(p.numel() for p in used), 4])
        found = (g.reshape(p.shape).to(p.dtype) for g, p in zip(pieces, used, strict=True))
        gradients = [laid_out(next(found), p) if there else None
                     for p, there in zip(self.parameters, present, strict=True)]  # fmt: skip
        gradients = clipped(gradients, self.clip_norm, self.clip_value)
        return Evaluation(Report(*numbers[:3]), numbers[3], gradients)

    def prepare(self, beta: Tensor | None, batch: Sequence[Tensor]) -> None:
        """Find out where the data lie in the random tensors, by a batch of any values.

        Nothing is changed: neither the random state nor buffers.
        """
        if (beta is not None) in self.layouts:
            return
        num = len(batch[0])

        def run(size: int) -> None:
            index = torch.arange(size, device=batch[0].device) % num
            self.objective.report(beta, *(tensor[index] for tensor in batch))

        with undisturbed(self.objective.model, self.objective.guide):
            particles = getattr(self.objective.estimator, "num_draws", 1)
            self.layouts[beta is not None] = draw_layouts(run, particles)

    def compare(self, beta: Tensor | None, batch: Sequence[Tensor]) -> None:
        """Warn, once, unless the halves of a batch give the gradient of the whole.

        Nothing is changed. Networks are not rounded, since sums of rounded products depend on how
        many data they are of.
        """
        num = len(batch[0])
        if self._compared or num < 4:
            return
        self._compared = True
        half = num // 2
        places = (Place(0, 0, num, num),), (Place(0, 0, half, num), Place(1, half, num - half, num))
        found = []
        for some in places:
            total: Any = 0.0
            for place in some:
                with undisturbed(self.objective.model, self.objective.guide), torch.enable_grad():
                    flat, _ = self._evaluate(beta, place, [x[place.rows] for x in batch])
                total = total + flat[:-4].detach()
            found.append(total)
        whole, halves = found
        apart = torch.linalg.vector_norm(whole - halves) > _CLOSE * torch.linalg.vector_norm(whole)
        if self.apart:
            warnings.warn(f"{_UNEQUAL_DRAWS} {_SO}", stacklevel=2)
        elif apart or getattr(self.objective.estimator, "looks_at_batch", False):
            warnings.warn(f"{_COUPLED} {_SO}", stacklevel=2)


_UNEQUAL_DRAWS = (
    "The programs draw from a gamma, Poisson, binomial or Dirichlet distribution, whose samplers "
    "take more random numbers for some values than for others."
)
_COUPLED = (
    "The gradient of a batch is not the sum over its data, as with batch normalisation, an optimal "
    "scale, FreeBits, Capacity or BetaTC, and each process sees its own rows only."
)
_SO = "Training is right, but its result depends on how many processes there are."
