"""The ends of training at a number that is not finite, with the last good weights in place."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyrovae.objective import Report
from pyrovae.training.diagnosis import advice, fault
from pyrovae.training.history import NonFiniteLoss

if TYPE_CHECKING:
    from pyrovae.training.loop import Trainer

__all__ = ["check", "of_validation", "stopped"]


def check(trainer: "Trainer") -> None:
    """Look at the steps since the last look.

    Raises:
        NonFiniteLoss: If one of them, or a weight, is not finite.
    """
    tally = trainer.tally
    assert tally is not None
    reports = tally.reports[tally.checked :]
    if not reports:
        return
    values = torch.stack([torch.stack(tuple(report)) for report in reports])
    if not trainer.ours:
        values = values[:, :1]  # an ELBO of Pyro's own reports its loss alone
    bad = ~torch.isfinite(values).all(1)
    if not bad.any() and _are_finite(trainer.step.parameters):
        trainer.good = trainer.weights.copy()
        tally.checked = len(tally.reports)
        trainer.recent.clear()
        return
    index, term, value = len(reports) - 1, "weights", math.nan
    if bad.any():
        index = int(bad.nonzero()[0])
        seen = dict(zip(Report._fields, values[index].tolist(), strict=False))
        order = ("reconstruction", "kl", "bound")
        term = next(name for name in order if not math.isfinite(seen.get(name, 0.0)))
        value = seen[term]
    trainer.weights.restore(trainer.good)
    back = len(reports) - index  # steps since then
    number, rows = tally.taken - back, trainer.recent[index]
    why = f"the {term} became {value} in batch {number} of the epoch"
    if rows is None:
        raise stopped(trainer, trainer.count - back + 1, term, f"{why}. ")
    some = ", ".join(map(str, rows[0][:5].tolist()))
    more = f" and {len(rows[0]) - 5} more" if len(rows[0]) > 5 else ""
    batch = trainer.train.gather(*rows)
    why = f"{why}, which holds the data {some}{more}. {fault(trainer.programs, batch)}"
    raise stopped(trainer, trainer.count - back + 1, term, why, batch)


def _are_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether all elements are. ``isfinite`` of each would take ten times as long."""
    real = (torch.view_as_real(t) if t.is_complex() else t for t in tensors if t.numel())
    ends = [end for t in real for end in torch.aminmax(t.detach())]
    return all(map(math.isfinite, torch.stack(ends).tolist()))


def stopped(
    trainer: "Trainer", step: int, term: str, why: str, batch: tuple[Tensor, ...] | None = None
) -> NonFiniteLoss:
    """The error that ends training at a step; ``batch`` is what it saw, if that is known."""
    trainer.weights.restore(trainer.good)
    epoch = len(trainer.history) + 1
    what = advice(trainer.programs, batch or trainer.train.first())
    return NonFiniteLoss(
        f"Training stopped at step {step} (epoch {epoch}): {why}The last good weights are back "
        f"in place. {what}",
        step=step,
        epoch=epoch,
        term=term,
        history=trainer.history,
    )


def of_validation(
    trainer: "Trainer", bound: float, epoch: int, first: int, last: int
) -> NonFiniteLoss:
    """The error that ends training after an epoch whose validation bound is not finite."""
    best = trainer.history.best_epoch
    trainer.weights.restore(trainer.best if best else trainer.good)
    return NonFiniteLoss(
        f"Training stopped after epoch {epoch + 1}: the bound of the validation data {first} "
        f"to {last - 1} is {bound}. Look for outliers among them, or lower lr. The weights "
        f"of {f'epoch {best}' if best else 'the last step'} are back in place.",
        step=trainer.count,
        epoch=epoch + 1,
        term="valid_bound",
        history=trainer.history,
    )
