r"""Differences between models that were trained several times, over data and training seeds.

All runs of both models are evaluated on the same data. Run s of model a gives datum n

.. math:: y_{asn} = \mu_a + A_{as} + D_{an} + E_{asn},

where A is the effect of the training seed, D that of the datum, and E what the two have to do with
each other, Monte Carlo noise included. Seeds are nested in models; data are crossed with both, and
the same for all. The difference of the grand means has the variance

.. math:: \frac{\sigma^2_{A_a} + \sigma^2_{E_a} / N}{S_a}
    + \frac{\sigma^2_{A_b} + \sigma^2_{E_b} / N}{S_b} + \frac{\sigma^2_{D_a - D_b}}{N}.

References:
    An Approximate Distribution of Estimates of Variance Components (Satterthwaite, 1946); A Simple
    Sequentially Rejective Multiple Test Procedure (Holm, 1979); Accounting for Variance in Machine
    Learning Benchmarks (Bouthillier et al., 2021),
    `arXiv:2103.03098 <https://arxiv.org/abs/2103.03098>`_, on how much training seeds matter.
"""

import math
from collections.abc import Sequence

import numpy as np

from pyrovae.compare.pairs import Pair, unknown_pair, within
from pyrovae.evidence.result import Evidence

__all__ = ["crossed", "of_models", "ranked", "seeds_error"]


def of_models(one: Sequence[Evidence], two: Sequence[Evidence], prob: float, error: str) -> Pair:
    """The difference between two models, each trained with several seeds.

    A model with one seed does not show how much seeds matter: its differences are unknown.
    """
    values = [np.stack([run.log_marginal.values for run in side]) for side in (one, two)]
    mean, chance, degrees = crossed(*values, same_data=error == "monte_carlo")
    if math.isnan(chance):
        return unknown_pair(mean, chance)
    sides = [] if error == "test_set" else [list(one), list(two)]
    return within(mean, chance, degrees, prob, sides)


def crossed(
    one: np.ndarray, two: np.ndarray, *, same_data: bool = False
) -> tuple[float, float, float]:
    """The mean difference, its standard error, and the degrees of freedom of that.

    The variance is that of run means over seeds, on each side, and that of differences over data,
    less the interaction of both, which is in each of them. It is never less than one of its parts.

    Args:
        one: ``(S, N)`` log p(x) of N data by S runs.
        two: ``(T, N)`` of the same data by the other model.
        same_data: Whether the difference is that for these very data.

    Returns:
        The error is NaN if either side has one run only.
    """
    mean = float(one.mean() - two.mean())
    if len(one) < 2 or len(two) < 2:
        return mean, math.nan, math.nan
    num_data = one.shape[1]
    parts = [(side.mean(1).var(ddof=1) / len(side), len(side) - 1) for side in (one, two)]
    seeds = total = sum(part for part, _ in parts)
    if not same_data:
        if num_data < 2:
            return mean, math.inf, math.inf
        data = (one.mean(0) - two.mean(0)).var(ddof=1) / num_data
        parts.append((data, num_data - 1))
        twice = sum(_interaction(side) / side.size for side in (one, two))
        total = max(seeds + data - twice, seeds, data)
    spread = sum(part**2 / degrees for part, degrees in parts)
    degrees = float(total**2 / spread) if spread > 0 else math.inf
    return mean, math.sqrt(total), degrees


def _interaction(side: np.ndarray) -> float:
    """The mean square of what is left beside the effects of seeds and of data."""
    rest = side - side.mean(1, keepdims=True) - side.mean(0) + side.mean()
    num_seeds, num_data = side.shape
    return float((rest**2).sum()) / ((num_seeds - 1) * (num_data - 1))


def seeds_error(runs: Sequence[Evidence]) -> float:
    """Standard error of a model's mean from its training seeds being few; NaN for one run."""
    if len(runs) < 2:
        return math.nan
    return float(np.std([run.mean() for run in runs], ddof=1)) / math.sqrt(len(runs))


def ranked(difference: np.ndarray, p_values: np.ndarray, prob: float) -> np.ndarray:
    """Which models are shown to be better than which others, ``(M, M)``.

    Holm's procedure: with probability ``prob`` there is no false claim among all pairs. Pairs with
    a p-value of NaN take no part.
    """
    better = np.zeros(difference.shape, bool)
    rows, columns = np.triu_indices(len(difference), 1)
    known = np.isfinite(p_values[rows, columns])
    rows, columns = rows[known], columns[known]
    order = np.argsort(p_values[rows, columns], kind="stable")
    for done, place in enumerate(order):
        i, j = rows[place], columns[place]
        if p_values[i, j] >= (1 - prob) / (len(order) - done):
            break
        better[i, j], better[j, i] = difference[i, j] > 0, difference[i, j] < 0
    return better
