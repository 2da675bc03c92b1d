r"""How far the truth may lie from a mean of estimated log p(x): the reasoning behind
:meth:`Evidence.interval`.

The log of an unbiased estimate is biased downwards, so the two ends differ. The lower end allows
for chance alone. The upper end allows for chance, for the bias, and for large weights that no draw
has met. Where the weights do not tell how far the upper end is, it is unknown.

References:
    Pareto Smoothed Importance Sampling (Vehtari et al., 2024),
    `arXiv:1507.02646 <https://arxiv.org/abs/1507.02646>`_: k, and the K that a given k asks for;
    On Nesting Monte Carlo Estimators (Rainforth et al., 2018),
    `arXiv:1709.06181 <https://arxiv.org/abs/1709.06181>`_: the bias falls like 1/K where the
    weights have a variance; An Approximate Distribution of Estimates of Variance Components
    (Satterthwaite, 1946); Confidence Intervals for the Mean of a Log-Normal Distribution (Olsson,
    2005), for few annealed chains.
"""

import itertools
import math
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import numpy as np

from pyrovae.weights import BATCHES, prior_share, shrunk_k, tail_size

Columns = Mapping[str, np.ndarray]
"""The columns of an Evidence, ``(B,)``; ``batch_log_mean`` is ``(B, 8)``."""

LEAST_WEIGHTS = 25  # fewer show no tail
_LEAST_ESS = 5.0  # fewer show next to nothing
# Annealed weights are nearly log-normal, which tells more than the tail of so few.
_FEW_CHAINS = 100
# How many data the theory counts for, against the data, in the rate at which the bias falls.
_PRIOR_DATA = 10
_MOST_RATE = 0.95
_ROUNDINGS = 4.0


class Reach(NamedTuple):
    """Distances, in nats, from a mean of log p(x) to the ends of its interval."""

    chance: float  # Monte Carlo error, either way
    bias: float  # how far the truth is expected to lie beyond the mean, on the side of the bias
    beyond: float  # chance and unmet weights, on the side of the bias


def quantile(prob: float, degrees: float = math.inf) -> float:
    """The quantile of Student's t that a central interval of probability ``prob`` reaches to."""
    from scipy.special import ndtri, stdtrit

    upper = 0.5 + prob / 2
    return float(ndtri(upper) if math.isinf(degrees) else stdtrit(degrees, upper))


def threshold(num_particles: float) -> float:
    r"""The largest k at which K weights are enough: :math:`\min(1 - 1 / \log_{10} K,\ 0.7)`
    (Vehtari et al., 2024).
    """
    return min(1 - 1 / math.log10(max(num_particles, 2)), 0.7)


def unknown(columns: Columns) -> str | None:
    """Why the interval has no end on the side of the bias; None where it has one."""
    if "pareto_k" not in columns:
        return None
    k = columns["pareto_k"]
    few = _few_chains(columns)
    if not few and (k == math.inf).mean() >= 0.5:
        return f"fewer than {LEAST_WEIGHTS} weights, or too few distinct ones, show no tail"
    if "batch_log_mean" not in columns:
        return None
    num = float(np.median(columns["num_particles"]))
    if few:
        return (
            "fewer than 8 chains do not show how far off their mean is" if num < BATCHES else None
        )
    if float(columns["ess"].mean()) < _LEAST_ESS:
        few = f"the effective sample size is below {_LEAST_ESS:.0f}"
        return f"{few}: a few weights decide the estimates"
    size, mean = max(tail_size(int(num)), 1), _mean_k(k)
    error = (1 + max(mean, 0.0)) / math.sqrt(size * len(k))
    shrunk = error * prior_share(size)  # that share of k is no evidence of a light tail
    if mean + error > threshold(num) and mean + shrunk > _light_k(columns, num, size):
        return (
            f"the weights have a heavier tail (mean k {mean:.2f}) than {num:,.0f} draws can average"
            f" (at most {threshold(num):.2f})"
        )
    return None


def reach(columns: Columns, prob: float) -> Reach:
    """The reach of the interval for the mean over the data, at probability ``prob``."""
    errors = columns["standard_error"]
    num_data = len(errors)
    total = float(np.sqrt((errors**2).sum()))
    if not math.isfinite(total):
        return Reach(math.inf, 0.0, math.inf)
    degrees = math.inf
    if "degrees_of_freedom" in columns and total > 0:
        share = (errors / total) ** 2
        degrees = 1 / float((share**2 / columns["degrees_of_freedom"]).sum())
    t = quantile(prob, degrees)
    rounding = _ROUNDINGS * float(columns["resolution"].mean()) if "resolution" in columns else 0.0
    chance = t * total / num_data + rounding
    if unknown(columns):
        return Reach(chance, 0.0, math.inf)
    bias, error = rise(columns)
    tails = float(np.sqrt(((t * _tail_error(columns)) ** 2).sum()))
    beyond = math.hypot(t * total, tails) / num_data + quantile(prob) * error + rounding
    return Reach(chance, bias, beyond)


def rise(columns: Columns) -> tuple[float, float]:
    r"""How much the mean would still rise with ever more particles, and the standard error of that,
    in nats.

    Half of the weights give a mean estimate that is lower by :math:`d_1`, a quarter of them one
    lower by a further :math:`d_2`; both are averages over all ways to choose among eight batches.
    If each doubling raises the mean by a fraction :math:`\rho` of what the doubling before did, all
    further ones together raise it by :math:`d_1 \rho / (1 - \rho)`. With weights of finite variance
    :math:`\rho` is 1/2, which gives the jackknife; with a Pareto tail of shape k above 1/2,
    :math:`\rho = 2^{1 - 1/k}`. So that the noise of few data does not decide, this theoretical
    value enters :math:`\rho = d_1 / d_2` with the weight of ten data.
    """
    if "batch_log_mean" not in columns or float(columns["num_particles"].min()) < BATCHES:
        return 0.0, 0.0
    batches = columns["batch_log_mean"]
    first, second = _doublings(batches)
    if not (np.isfinite(first).all() and np.isfinite(second).all()) or first.mean() <= 0:
        return 0.0, 0.0
    num_data, d1, d2 = len(first), float(first.mean()), max(float(second.mean()), 1e-300)
    theory = 0.6
    if not _few_chains(columns):
        theory = max(0.5, 2 ** min(0.0, 1 - 1 / max(_mean_k(columns["pareto_k"]), 0.01)))
    rate = (num_data * d1 / d2 + _PRIOR_DATA * theory) / (num_data + _PRIOR_DATA)
    rate = min(max(rate, 0.5), _MOST_RATE)
    factor = rate / (1 - rate)
    bias = factor * d1
    if num_data == 1:
        return bias, 0.0
    # Delta method for d1 rate / (1 - rate), as a function of d1 and d2.
    change = factor * (1 + 1 / (1 - rate)) * (first - d1) - factor**2 * (second - d2)
    error = math.sqrt(float((change**2).sum()) / (num_data * (num_data - 1)))
    return bias, min(error, bias)


def _mean_k(k: np.ndarray) -> float:
    """Mean k over data, with 1 where there is no diagnosis."""
    return float(np.clip(np.where(k == math.inf, 1.0, k), -2.0, 2.0).mean())


@cache
def _subsets(size: int) -> np.ndarray:
    return np.array(list(itertools.combinations(range(BATCHES), size)))


def _doublings(batches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(B,)`` each: what the last doubling of the weights added to the estimate, and what the one
    before added.
    """
    top = batches.max(1, keepdims=True)
    weights = np.exp(batches - top)
    means = []
    for size in (BATCHES, BATCHES // 2, BATCHES // 4):
        with np.errstate(divide="ignore"):
            means.append(np.log(weights[:, _subsets(size)].mean(2)).mean(1))
    return means[0] - means[1], means[1] - means[2]


def _few_chains(columns: Columns) -> bool:
    return "acceptance" in columns and bool((columns["num_particles"] < _FEW_CHAINS).all())


def _tail_error(columns: Columns) -> np.ndarray:
    """``(B,)``: what weights that were not met may add to each estimate, as one standard error."""
    if "batch_log_mean" not in columns:
        return np.zeros(len(columns["standard_error"]))
    if _few_chains(columns):
        # Olsson's variance of the log of a log-normal mean, three times over: annealed weights are
        # skewed further.
        variance, num = columns["log_weight_variance"], columns["num_particles"]
        return np.sqrt(3 * (variance / num + variance**2 / (2 * np.maximum(num - 1, 1))))
    # Where k lies below 1/2 by its standard error, the weights have a variance and their standard
    # error holds.
    k = columns["pareto_k"]
    sizes = np.array([max(tail_size(int(num)), 1) for num in columns["num_particles"]])
    heavy = k + (1 + np.maximum(k, 0)) / np.sqrt(sizes) > 0.5
    unseen = columns["unseen"] / 2  # at two standard errors of k
    return np.where(heavy & np.isfinite(unseen), unseen, 0.0)


def _light_k(columns: Columns, num: float, size: int) -> float:
    """The k below which a tail grows lighter further out, so that the extrapolation errs on the
    safe side.

    It is the mean excess of the log weights over the tail's threshold if they were normal with the
    variance that they have, lower by the relative noise of a k from M = ``size`` weights, and
    shrunk towards 1/2 as k itself is.
    """
    from scipy.special import ndtri

    z = -ndtri(size / num)
    hazard = math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) / (size / num)
    variance = columns["log_weight_variance"]
    finite = variance[np.isfinite(variance)]
    spread = math.sqrt(float(finite.mean())) if finite.size else 0.0
    light = (1 - 1 / math.sqrt(size)) * (hazard - z) * spread
    return max(light, shrunk_k(light, size))
