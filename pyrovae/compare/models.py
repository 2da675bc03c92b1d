"""Compare models by their evidence on the same data, datum by datum."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pyrovae.compare import pairs, seeds
from pyrovae.compare.checks import check, check_effort, effort_of
from pyrovae.compare.table import ModelComparison
from pyrovae.evidence.result import Evidence

__all__ = ["ModelComparison", "compare_models", "tabulate"]


def compare_models(
    evidence: Mapping[str, Evidence | Sequence[Evidence]],
    *,
    prob: float = 0.95,
    error: str = "both",
    allow_unequal_effort: bool = False,
) -> ModelComparison:
    r"""Compare models whose evidence was estimated on the same data with the same method.

    Differences are paired, :math:`d_n = \log p_a(x_n) - \log p_b(x_n)`: what makes a datum hard for
    both models cancels. The error of their mean is that of the differences themselves. Over data it
    is the spread of :math:`d_n`, which holds the Monte Carlo noise of each; quantiles are those of
    Student's t with N - 1 degrees of freedom. For these very data it is the jackknife over eight
    batches of weights: with the same seed both models get the same noise, part of which cancels.
    The ends also allow for biases of the two estimates, and for weights that were not met, as
    :meth:`Evidence.interval` does.

    One result a model compares *these weights*. A list of results a model, one for each training
    seed, compares the *models*: what they give on average over seeds. The variance of a difference
    is then that of run means over seeds, on each side, and that of the differences over data, with
    Satterthwaite's degrees of freedom. Holm's procedure over all pairs ranks the models; nothing is
    said of one with a single seed. Two seeds are few: where the spreads over seeds are very
    unequal, a 95 % interval then holds the truth in 92 % of cases.

    Args:
        evidence: Evidence by model name, two or more; or a list of it, one for each training seed.
        prob: How often an interval is to hold the true difference.
        error: ``"both"`` (for all such data); ``"monte_carlo"`` (for these very data);
            ``"test_set"`` (for all such data, without allowances for bias and for weights that were
            not met).
        allow_unequal_effort: Compare estimates of different methods, settings or numbers of
            particles all the same. Their biases differ, so that the same model can come out better
            than itself.

    Raises:
        TypeError: If a value is no evidence.
        ValueError: If there are fewer than two, if they saw other data or the same in another
            order, if some bound from below and others from above, if some are probabilities and
            others densities, if methods or effort differ, if one model has the same result twice,
            or if an argument is out of range.

    >>> import pyrovae as pv
    >>> one, two = pv.testing.LinearGaussian(), pv.testing.LinearGaussian(noise=1.4)
    >>> x = one.sample(200)
    >>> table = pv.compare_models(
    ...     {
    ...         name: pv.log_marginal(oracle.model, oracle.guide, x, num_particles=100)
    ...         for name, oracle in {"one": one, "two": two}.items()
    ...     }
    ... )
    >>> table.best
    'one'
    """
    results = check(evidence, prob, error)
    if not allow_unequal_effort:
        check_effort(results)
    if all(isinstance(value, Evidence) for value in evidence.values()):
        return tabulate({k: [v] for k, v in results.items()}, prob, error, over_seeds=False)
    runs = {k: [v] if isinstance(v, Evidence) else [*v] for k, v in evidence.items()}
    return tabulate(runs, prob, error)


def tabulate(
    evidence: Mapping[str, list[Evidence]],
    prob: float = 0.95,
    error: str = "both",
    *,
    over_seeds: bool = True,
) -> ModelComparison:
    """The comparison of one model or more, whose results may be compared."""
    import xarray

    def mean(name: str) -> float:
        return math.fsum(one.mean() for one in evidence[name]) / len(evidence[name])

    names = sorted(evidence, key=lambda name: -mean(name))
    each = [evidence[name] for name in names]

    def pair(i: int, j: int) -> pairs.Pair:
        if i == j:
            return pairs.SAME
        if over_seeds:
            return seeds.of_models(each[i], each[j], prob, error)
        return pairs.of_weights(each[i][0], each[j][0], prob, error)

    found = [[pair(i, j) for j in range(len(names))] for i in range(len(names))]
    cells = {
        name: np.array([[getattr(pair, name) for pair in row] for row in found])
        for name in pairs.Pair._fields
    }
    p_values = cells.pop("p_value")
    columns: dict[str, Any] = {
        "mean": [mean(name) for name in names],
        "monte_carlo_error": [_joint(one.monte_carlo_error() for one in runs) for runs in each],
        "test_set_error": [_test_set_error(runs) for runs in each],
        "flagged": [float(np.mean([one.share_flagged for one in runs])) for runs in each],
        "effort": [", ".join(dict.fromkeys(map(effort_of, runs))) for runs in each],
    }
    if over_seeds:
        columns["num_seeds"] = [len(runs) for runs in each]
        columns["seeds_error"] = [seeds.seeds_error(runs) for runs in each]
        cells["better"] = better = seeds.ranked(cells["difference"], p_values, prob)
        several = np.array([len(runs) > 1 for runs in each])
        columns["first_rank"] = np.where(several, 1 + better.sum(0), 0)
        columns["last_rank"] = np.where(several, several.sum() - better.sum(1), 0)
    dataset = xarray.Dataset(
        {name: (("model", "reference"), values) for name, values in cells.items()}
        | {name: ("model", values) for name, values in columns.items()},
        coords={"model": names, "reference": names},
        attrs={"prob": prob, "error": error, "num_data": len(each[0][0])},
    )
    return ModelComparison(dataset)


def _joint(errors: Any) -> float:
    """The standard error of the mean of independent estimates."""
    values = [*errors]
    return math.sqrt(math.fsum(value**2 for value in values)) / len(values)


def _test_set_error(runs: list[Evidence]) -> float:
    """That of the mean over seeds, from the data being few."""
    if len(runs) == 1:
        return runs[0].test_set_error()
    each = np.mean([one.log_marginal.values for one in runs], 0)
    if len(each) == 1 or not np.isfinite(each).all():
        return math.inf
    chance = _joint(one.monte_carlo_error() for one in runs)
    return math.sqrt(max(0.0, float(each.var(ddof=1)) / len(each) - chance**2))
