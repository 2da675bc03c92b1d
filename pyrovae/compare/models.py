"""Compare models by their evidence on the same data, datum by datum."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pyrovae.evidence.intervals import quantile, reach
from pyrovae.evidence.result import Evidence

if TYPE_CHECKING:
    import xarray

__all__ = ["ModelComparison", "compare_models"]


class ModelComparison:
    """Paired differences of log p(x) between models, in nats per datum.

    ``dataset`` is an :class:`xarray.Dataset` over ``model`` and ``reference``, both the models'
    names, best first: ``difference`` is the mean of log p(x) under the model less that under the
    reference, ``standard_error`` its error, ``lower`` and ``upper`` the ends of its interval,
    ``probability`` that the model is the better of the two. Where the evidence of either side has
    no upper end, the ends are infinite and the probability is NaN. Over ``model`` alone: ``mean``,
    its ``monte_carlo_error``, ``flagged``, the share of data with k above 0.7, and ``effort``, the
    method with its settings.

    The comparison is one of these weights. It does not tell how the models would compare after
    training with other seeds: train each several times for that.
    """

    def __init__(self, dataset: "xarray.Dataset"):
        self.dataset = dataset

    @property
    def best(self) -> str:
        """Name of the model with the highest mean."""
        return str(self.dataset["model"].values[0])

    def __repr__(self) -> str:
        table = self.dataset
        names = [str(name) for name in table["model"].values]
        width = max(12, *map(len, names))
        prob, error = table.attrs["prob"], table.attrs["error"].replace("_", " ")
        efforts = [str(effort) for effort in table["effort"].values]
        lines = [
            f"log p(x) of {table.attrs['num_data']} data in nats per datum, and the difference "
            f"from {names[0]!r} with its {prob:.0%} interval ({_ERRORS[table.attrs['error']]})",
            f"{'model':<{width}}  {'mean':>10}  {'difference':>10}  {'interval':>20}  "
            f"{'P(better)':>9}  {'k > 0.7':>7}  method",
        ]
        for i, name in enumerate(names):
            row = table.isel(model=i, reference=0)
            beside = f"{'':>10}  {'':>20}  {'':>9}"
            if i:
                ends = f"[{float(row['lower']):.3f}, {float(row['upper']):.3f}]"
                probability = float(row["probability"])
                ends = "unknown" if math.isnan(probability) else ends
                beside = f"{float(row['difference']):>10.3f}  {ends:>20}  {probability:>9.3g}"
            lines.append(
                f"{name:<{width}}  {float(row['mean']):>10.3f}  {beside}  "
                f"{float(row['flagged']):>7.1%}  {efforts[i]}"
            )
        if table["probability"].isnull().any():
            lines.append(
                f"unknown: an estimate has no upper end, so the {error} error of its differences "
                "has none; print it"
            )
        if len(set(efforts)) > 1:
            lines.append("methods or effort differ: so do the biases of the estimates")
        lines.append("This compares these weights, not what other training seeds would give.")
        return "\n".join(lines)


_ERRORS = {
    "both": "for all such data",
    "test_set": "for all such data, the estimates taken as exact",
    "monte_carlo": "for these very data",
}


def compare_models(
    evidence: Mapping[str, Evidence],
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

    Args:
        evidence: Evidence by model name, two or more.
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
            order, if some bound from below and others from above, if methods or effort differ, or
            if an argument is out of range.

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
    _check(evidence, prob, error)
    if not allow_unequal_effort:
        _check_effort(evidence)
    return ModelComparison(_table(evidence, prob, error))


def _table(evidence: Mapping[str, Evidence], prob: float, error: str) -> "xarray.Dataset":
    import xarray

    names = sorted(evidence, key=lambda name: -evidence[name].mean())
    shape = (len(names), len(names))
    cells = {
        name: np.zeros(shape)
        for name in ("difference", "standard_error", "lower", "upper", "probability")
    }
    for i, first in enumerate(names):
        for j, second in enumerate(names):
            pair = _pair(evidence[first], evidence[second], prob, error, same=i == j)
            for name, value in zip(cells, pair, strict=True):
                cells[name][i, j] = value
    each = [evidence[name] for name in names]
    return xarray.Dataset(
        {
            **{name: (("model", "reference"), values) for name, values in cells.items()},
            "mean": ("model", [one.mean() for one in each]),
            "monte_carlo_error": ("model", [one.monte_carlo_error() for one in each]),
            "flagged": ("model", [one.share_flagged for one in each]),
            "effort": ("model", [_effort(one) for one in each]),
        },
        coords={"model": names, "reference": names},
        attrs={"prob": prob, "error": error, "num_data": len(each[0])},
    )


def _pair(
    one: Evidence, two: Evidence, prob: float, error: str, *, same: bool
) -> tuple[float, float, float, float, float]:
    """Mean difference, its error, both ends, and the probability that the first is the better."""
    if same:
        return 0.0, 0.0, 0.0, 0.0, 0.5
    difference = one.log_marginal.values - two.log_marginal.values
    num_data, mean = len(difference), float(difference.mean())
    chance, degrees = _paired_error(one, two)
    if error != "monte_carlo":
        spread = difference.std(ddof=1) / math.sqrt(num_data) if num_data > 1 else math.inf
        if error == "test_set" or spread > chance:
            chance, degrees = spread, max(num_data - 1, 1)
    if error != "test_set" and (one.unknown or two.unknown):
        return mean, chance, -math.inf, math.inf, math.nan
    if not math.isfinite(mean) or not math.isfinite(chance):
        return mean, chance, -math.inf, math.inf, math.nan
    low = high = quantile(prob, degrees) * chance
    if error != "test_set":
        above, below = (_allowance(side, prob) for side in (one, two))
        bias = above[0] - below[0]
        low = math.hypot(low, below[1]) + max(0.0, -bias)
        high = math.hypot(high, above[1]) + max(0.0, bias)
    return mean, chance, mean - low, mean + high, _probability(mean, chance, degrees)


def _allowance(side: Evidence, prob: float) -> tuple[float, float]:
    """By how much the side's estimate is biased, and what lies beyond chance on the side of the
    bias.
    """
    found = reach(side.columns, prob)
    return found.bias, math.sqrt(max(found.beyond**2 - found.chance**2, 0.0))


def _paired_error(one: Evidence, two: Evidence) -> tuple[float, float]:
    """Monte Carlo error of the mean difference, and its degrees of freedom, by the jackknife over
    batches of weights.

    Evidence made by hand has no batches; its errors are taken as independent.
    """
    sides = [one.columns, two.columns]
    if not all("batch_log_mean" in side for side in sides):
        variances = sum((side["standard_error"] ** 2).sum() for side in sides)
        return math.sqrt(float(variances)) / len(one), math.inf
    without = []
    for side in sides:
        batches = side["batch_log_mean"]  # (B, 8)
        top = batches.max(1, keepdims=True)
        weights = np.exp(batches - top)
        with np.errstate(divide="ignore"):
            without.append(np.log(weights.sum(1, keepdims=True) - weights))
    change = without[0] - without[1]
    num = change.shape[1]
    variances = (num - 1) / num * ((change - change.mean(1, keepdims=True)) ** 2).sum(1)
    total = float(variances.sum())
    if not math.isfinite(total):
        return math.inf, math.inf
    degrees = (num - 1) * total**2 / float((variances**2).sum()) if total > 0 else math.inf
    return math.sqrt(total) / len(one), degrees


def _probability(mean: float, error: float, degrees: float) -> float:
    from scipy.special import ndtr, stdtr

    if error == 0:
        return 0.5 if mean == 0 else float(mean > 0)
    return float(ndtr(mean / error) if math.isinf(degrees) else stdtr(degrees, mean / error))


def _effort(one: Evidence) -> str:
    settings = ", ".join(f"{name}={value!r}" for name, value in one.settings.items())
    return f"{one.method}({settings})" if one.method else "unknown"


def _check(evidence: Mapping[str, Evidence], prob: float, error: str) -> None:
    if not isinstance(evidence, Mapping):
        raise TypeError(
            f'compare_models takes a mapping {{"name": evidence}}, found {type(evidence).__name__}.'
        )
    for name, value in evidence.items():
        if not isinstance(value, Evidence):
            raise TypeError(
                f"'{name}' must be an Evidence of log_marginal, found {type(value).__name__}."
            )
    if len(evidence) < 2:
        raise ValueError(f"A comparison takes two models or more, found {list(evidence)}.")
    if not 0 < prob < 1:
        raise ValueError(f"prob must lie between 0 and 1, found {prob}.")
    if error not in _ERRORS:
        raise ValueError(f"error must be 'both', 'monte_carlo' or 'test_set', found {error!r}.")
    first, *others = evidence
    base = evidence[first].dataset.attrs
    for name in others:
        found = evidence[name].dataset.attrs
        if len(evidence[name]) != len(evidence[first]) or found["data"] != base["data"]:
            raise ValueError(
                f"'{first}' and '{name}' were evaluated on different data ({len(evidence[first])} "
                f"and {len(evidence[name])} of them; contents or order differ). Evaluate both on "
                "the same test set, binarised once."
            )
        for what in ("bound", "data_scale"):
            if found[what] != base[what]:
                raise ValueError(
                    f"'{first}' has {what} {base[what]!r} and '{name}' {found[what]!r}: their "
                    "difference means nothing."
                )


def _check_effort(evidence: Mapping[str, Evidence]) -> None:
    first, *others = evidence
    for name in others:
        if _effort(evidence[first]) != _effort(evidence[name]):
            raise ValueError(
                f"'{first}' was evaluated by {_effort(evidence[first])} and '{name}' by "
                f"{_effort(evidence[name])}. Estimates of different methods or effort have "
                "different biases, so that a model can come out better than itself. Evaluate both "
                "in the same way, or pass allow_unequal_effort=True."
            )
