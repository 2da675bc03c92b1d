"""The difference between two evaluated models, and how far it may be from the truth."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from pyrovae.evidence.intervals import quantile, reach
from pyrovae.evidence.result import Evidence
from pyrovae.weights import leave_one_out

__all__ = ["SAME", "unknown_pair", "Pair", "monte_carlo", "of_weights", "within"]


class Pair(NamedTuple):
    """A mean difference of log p(x), in nats per datum.

    ``p_value`` is that of no difference. Both probabilities make the allowances that the interval
    makes, so all three agree on whether there is a difference. Where an end of the interval is
    unknown, the ends are infinite and the probabilities NaN.
    """

    difference: float
    standard_error: float
    lower: float
    upper: float
    probability: float  # that the first is the better
    p_value: float


SAME = Pair(0.0, 0.0, 0.0, 0.0, 0.5, math.nan)


def unknown_pair(mean: float, error: float) -> Pair:
    """A difference whose interval has no ends."""
    return Pair(mean, error, -math.inf, math.inf, math.nan, math.nan)


def of_weights(one: Evidence, two: Evidence, prob: float, error: str) -> Pair:
    """The difference between two sets of weights, paired over data.

    ``error`` is ``"both"``, ``"test_set"`` or ``"monte_carlo"``, as in :func:`compare_models`.
    """
    difference = one.log_marginal.values - two.log_marginal.values
    num_data, mean = len(difference), float(difference.mean())
    chance, degrees = monte_carlo([one], [two])
    if error != "monte_carlo":
        spread = difference.std(ddof=1) / math.sqrt(num_data) if num_data > 1 else math.inf
        if error == "test_set" or spread > chance:
            chance, degrees = spread, max(num_data - 1, 1)
    return within(mean, chance, degrees, prob, [] if error == "test_set" else [[one], [two]])


def within(
    mean: float, chance: float, degrees: float, prob: float, sides: list[list[Evidence]]
) -> Pair:
    """The interval of a difference with this standard error and degrees of freedom.

    ``sides`` is empty, or holds the evidence of both sides. Then the ends also allow for the bias
    of each and for weights that were not met.
    """
    if any(one.unknown for side in sides for one in side):
        return unknown_pair(mean, chance)
    if not (math.isfinite(mean) and math.isfinite(chance)):
        return unknown_pair(mean, chance)
    reached = quantile(prob, degrees) * chance
    low, high = (reached, 0.0), (reached, 0.0)  # half-width, and shift by the bias
    if sides:
        above, below = (_allowance(side, prob) for side in sides)
        bias = above[0] - below[0]
        low = math.hypot(reached, below[1]), max(0.0, -bias)
        high = math.hypot(reached, above[1]), max(0.0, bias)
    # The half-width that decides is the one towards zero.
    width, shift = low if mean > 0 else high
    tail = _probability(-max(abs(mean) - shift, 0.0), width / quantile(prob, degrees), degrees)
    probability = tail if mean < 0 else 1 - tail
    return Pair(mean, chance, mean - sum(low), mean + sum(high), probability, 2 * tail)


def _allowance(side: list[Evidence], prob: float) -> tuple[float, float]:
    """By how much the mean of a side's estimates is biased, and what lies beyond chance on the side
    of the bias.

    What no weight has met may be the same for every run, so it does not average out.
    """
    found = [reach(one.columns, prob) for one in side]
    beyond = [math.sqrt(max(each.beyond**2 - each.chance**2, 0.0)) for each in found]
    return math.fsum(each.bias for each in found) / len(found), math.fsum(beyond) / len(found)


def monte_carlo(one: Sequence[Evidence], two: Sequence[Evidence] = ()) -> tuple[float, float]:
    """Monte Carlo error of the difference between two sides' means over runs, and its degrees of
    freedom, by the jackknife over batches of weights.

    Runs may share random numbers, and what they share then counts as such. Evidence made by hand
    has no batches; its errors are taken as independent.
    """
    sides, num_data = [runs for runs in (one, two) if runs], len(one[0])
    columns = [[run.columns for run in runs] for runs in sides]
    if not all("batch_log_mean" in run for runs in columns for run in runs):
        squares = [sum((r["standard_error"] ** 2).sum() for r in c) / len(c) ** 2 for c in columns]
        return math.sqrt(float(sum(squares))) / num_data, math.inf
    means = [np.mean([_leave_out(run) for run in runs], axis=0) for runs in columns]
    change = means[0] - means[1] if len(means) > 1 else means[0]
    num = change.shape[1]
    variances = (num - 1) / num * ((change - change.mean(1, keepdims=True)) ** 2).sum(1)
    total = float(variances.sum())
    if not math.isfinite(total):
        return math.inf, math.inf
    degrees = (num - 1) * total**2 / float((variances**2).sum()) if total > 0 else math.inf
    return math.sqrt(total) / num_data, degrees


def _leave_out(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """``(B, 8)``: each estimate without one batch of weights, but for a constant."""
    return leave_one_out(torch.from_numpy(columns["batch_log_mean"].T)).T.numpy()


def _probability(mean: float, error: float, degrees: float) -> float:
    from scipy.special import ndtr, stdtr

    if error == 0:
        return 0.5 if mean == 0 else float(mean > 0)
    return float(ndtr(mean / error) if math.isinf(degrees) else stdtr(degrees, mean / error))
