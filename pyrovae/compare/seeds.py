r"""Differences between models that were trained several times, over data and training seeds.

All runs of both models are evaluated on the same data. Run s of model a gives datum n

.. math:: y_{asn} = \mu_a + A_{as} + D_{an} + E_{asn},

where A is the effect of the training seed, D that of the datum, and E what the two have to do with
each other, Monte Carlo noise included. Seeds are nested in models; data are crossed with both, and
the same for all. The difference of the grand means over all such data has the variance

.. math:: \frac{\sigma^2_{A_a} + \sigma^2_{E_a} / N}{S_a}
    + \frac{\sigma^2_{A_b} + \sigma^2_{E_b} / N}{S_b} + \frac{\sigma^2_{D_a - D_b}}{N}.

For these very data the last term falls away. In its place stands the Monte Carlo noise that all
runs of a model share, since they were evaluated with the same random numbers.

References:
    An Approximate Distribution of Estimates of Variance Components (Satterthwaite, 1946); A Simple
    Sequentially Rejective Multiple Test Procedure (Holm, 1979); Accounting for Variance in Machine
    Learning Benchmarks (Bouthillier et al., 2021),
    `arXiv:2103.03098 <https://arxiv.org/abs/2103.03098>`_, on how much training seeds matter.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pyrovae.compare.pairs import Pair, monte_carlo, unknown_pair, within
from pyrovae.evidence.result import Evidence

__all__ = ["Noise", "crossed", "noise_of", "of_models", "ranked", "seeds_error"]


class Noise(NamedTuple):
    """Variances of the mean difference by Monte Carlo noise alone."""

    variance: float
    independent: float  # what of it differs from run to run, and so shows in their spread
    degrees: float  # of freedom


def noise_of(one: Sequence[Evidence], two: Sequence[Evidence]) -> Noise:
    r"""The noise of the difference, from all runs together and from each alone.

    With S runs a side, noise of variance :math:`\sigma^2 + \tau^2`, of which they share
    :math:`\sigma^2`, gives their mean the variance :math:`\sigma^2 + \tau^2 / S`.
    """
    error, degrees = monte_carlo(one, two)
    independent = 0.0
    for side in (one, two):
        each = math.fsum(monte_carlo([run])[0] ** 2 for run in side) / len(side)
        if len(side) > 1:
            independent += (each - monte_carlo(side)[0] ** 2) / (len(side) - 1)
    return Noise(error**2, independent, degrees)


def of_models(one: Sequence[Evidence], two: Sequence[Evidence], prob: float, error: str) -> Pair:
    """The difference between two models, each trained with several seeds.

    A model with one seed does not show how much seeds matter: its differences are unknown.
    """
    first, second = (np.stack([run.log_marginal.values for run in side]) for side in (one, two))
    noise = noise_of(one, two) if error == "monte_carlo" else None
    mean, chance, degrees = crossed(first, second, noise)
    if math.isnan(chance):
        return unknown_pair(mean, chance)
    sides = [] if error == "test_set" else [list(one), list(two)]
    return within(mean, chance, degrees, prob, sides)


def crossed(
    one: np.ndarray, two: np.ndarray, noise: Noise | None = None
) -> tuple[float, float, float]:
    """The mean difference, its standard error, and the degrees of freedom of that.

    The variance is that of run means over seeds, on each side, and that of differences over data,
    less the interaction of both, which is in each of them. For the same data it is that of run
    means and the Monte Carlo noise, less what the first holds of the second. It is never less than
    one of its parts.

    Args:
        one: ``(S, N)`` log p(x) of N data by S runs.
        two: ``(T, N)`` of the same data by the other model.
        noise: Monte Carlo noise, for the difference on these very data.

    Returns:
        The error is NaN if either side has one run only.
    """
    mean = float(one.mean() - two.mean())
    if len(one) < 2 or len(two) < 2:
        return mean, math.nan, math.nan
    num_data = one.shape[1]
    parts = [(float(x.mean(1).var(ddof=1)) / len(x), len(x) - 1.0) for x in (one, two)]
    seeds = sum(part for part, _ in parts)
    if noise is not None:
        other, twice, degrees = noise
    elif num_data < 2:
        return mean, math.inf, math.inf
    else:
        other = (one.mean(0) - two.mean(0)).var(ddof=1) / num_data
        twice = sum(_interaction(side) / side.size for side in (one, two))
        degrees = num_data - 1
    parts.append((other, degrees))
    total = max(seeds + other - twice, seeds, other)
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
