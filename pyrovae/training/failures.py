"""The ends of training at a number that is not finite, with the last good weights in place."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyrovae.objective import Report
from pyrovae.training.diagnosis import advice, fault
from pyrovae.training.history import NonFiniteLoss
from pyrovae.training.state import State

__all__ = ["check", "of_validation", "stopped"]


def check(state: State) -> None:
    """Look at the steps since the last look.

    Raises:
        NonFiniteLoss: If one of them, or a weight, is not finite.
    """
    tally = state.tally
    assert tally is not None
    reports = tally.reports[tally.checked :]
    if not reports:
        return
    values = torch.stack([torch.stack(tuple(report)) for report in reports])
    if not state.ours:
        values = values[:, :1]  # an ELBO of Pyro's own reports its loss alone
    # A weighted bound may be finite where the model excludes some draws, and the mean is not.
    bad = ~torch.isfinite(values[:, 0])
    if not bad.any() and _are_finite(state.step.parameters):
        state.good = state.weights.copy()
        tally.checked = len(tally.reports)
        state.recent.clear()
        return
    index, term, value = len(reports) - 1, "weights", math.nan
    if bad.any():
        index = int(bad.nonzero()[0])
        seen = dict(zip(Report._fields, values[index].tolist(), strict=False))
        order = ("reconstruction", "kl", "bound")
        term = next(name for name in order if not math.isfinite(seen.get(name, 0.0)))
        value = seen[term]
    state.weights.restore(state.good)
    back = len(reports) - index  # steps since then
    number, rows = tally.taken - back, state.recent[index]
    why = f"the {term} became {value} in batch {number} of the epoch"
    if rows is None:
        raise stopped(state, state.count - back + 1, term, f"{why}. ")
    some = ", ".join(map(str, rows[0][:5].tolist()))
    more = f" and {len(rows[0]) - 5} more" if len(rows[0]) > 5 else ""
    batch = state.train.gather(*rows)
    why = f"{why}, which holds the data {some}{more}. {fault(state.programs, batch)}"
    raise stopped(state, state.count - back + 1, term, why, batch)


def _are_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether all elements are. ``isfinite`` of each would take ten times as long."""
    real = (torch.view_as_real(t) if t.is_complex() else t for t in tensors if t.numel())
    ends = [end for t in real for end in torch.aminmax(t.detach())]
    return all(map(math.isfinite, torch.stack(ends).tolist()))


def stopped(
    state: State, step: int, term: str, why: str, batch: tuple[Tensor, ...] | None = None
) -> NonFiniteLoss:
    """The error that ends training at a step; ``batch`` is what it saw, if that is known."""
    state.weights.restore(state.good)
    epoch = len(state.history) + 1
    what = advice(state.programs, batch or state.train.first())
    return NonFiniteLoss(
        f"Training stopped at step {step} (epoch {epoch}): {why}The last good weights are back "
        f"in place. {what}",
        step=step,
        epoch=epoch,
        term=term,
        history=state.history,
    )


def of_validation(state: State, bound: float, epoch: int, first: int, last: int) -> NonFiniteLoss:
    """The error that ends training after an epoch whose validation bound is not finite."""
    best = state.history.best_epoch
    state.weights.restore(state.best if best else state.good)
    return NonFiniteLoss(
        f"Training stopped after epoch {epoch + 1}: the bound of the validation data {first} "
        f"to {last - 1} is {bound}. Look for outliers among them, or lower lr. The weights "
        f"of {f'epoch {best}' if best else 'the last step'} are back in place.",
        step=state.count,
        epoch=epoch + 1,
        term="valid_bound",
        history=state.history,
    )
