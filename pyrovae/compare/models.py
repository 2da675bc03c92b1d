"""Compare models by their evidence on the same data, datum by datum."""

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from pyrovae.evidence.result import Evidence

if TYPE_CHECKING:
    import xarray

__all__ = ["ModelComparison", "compare_models"]


class ModelComparison:
    """Paired differences of log p(x) between models, in nats per datum.

    ``dataset`` is an :class:`xarray.Dataset` over ``model`` and ``reference``, both the models' names, best first:
    ``difference`` is the mean of log p(x) under the model less that under the reference, ``standard_error`` its error,
    ``lower`` and ``upper`` the ends of its interval, ``probability`` that the model is the better of the two.
    Over ``model`` alone: ``mean``, its ``monte_carlo_error``, and ``flagged``, the share of data with k above 0.7.
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
        prob, error = table.attrs["prob"], table.attrs["error"]
        lines = [
            f"log p(x) of {table.attrs['num_data']} data, nats per datum; difference from {self.best!r} with a "
            f"{prob:.0%} interval ({error.replace('_', ' ')} error)",
            f"{'model':<{width}}  {'mean':>10}  {'difference':>10}  {'interval':>20}  {'P(better)':>9}  {'k > 0.7':>7}",
        ]
        for i, name in enumerate(names):
            row = table.isel(model=i, reference=0)
            ends = f"[{float(row['lower']):.3f}, {float(row['upper']):.3f}]"
            beside = (
                f"{'':>10}  {'':>20}  {'':>9}"
                if i == 0
                else f"{float(row['difference']):>10.3f}  {ends:>20}  {float(row['probability']):>9.3g}"
            )
            lines.append(
                f"{name:<{width}}  {float(row['mean']):>10.3f}  {beside}  {float(row['flagged']):>7.1%}"
            )
        return "\n".join(lines)


def compare_models(
    evidence: Mapping[str, Evidence], *, prob: float = 0.95, error: str = "both"
) -> ModelComparison:
    r"""Compare models whose evidence was estimated on the same data.

    Differences are paired, :math:`d_n = \log p_a(x_n) - \log p_b(x_n)`: what makes a datum hard for both models
    cancels. Their mean's error counts the spread of d over data, the Monte Carlo errors, or both.

    Args:
        evidence: Evidence by model name, two or more.
        prob: How often an interval is to hold the true difference.
        error: ``"both"`` (also for data not seen, the spread of d over data, which holds the Monte Carlo part);
            ``"monte_carlo"`` (for these very data); ``"test_set"`` (that spread without the Monte Carlo part).

    Raises:
        TypeError: If a value is no evidence.
        ValueError: If there are fewer than two, if they saw other data or the same in another order, if some bound
            from below and others from above, or if an argument is out of range.
    """
    _check(evidence, prob, error)
    import xarray

    names = sorted(evidence, key=lambda name: -evidence[name].mean())
    values = np.stack([evidence[name].log_marginal.values for name in names])  # (M, B)
    variances = np.stack([evidence[name].standard_error.values ** 2 for name in names])
    num_data = values.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = values[:, None] - values[None]  # (M, M, B)
        chance = (variances[:, None] + variances[None]).sum(-1) / num_data**2
        spread = (
            difference.var(-1, ddof=1) / num_data
            if num_data > 1
            else np.full(chance.shape, math.inf)
        )
    total = {
        "monte_carlo": chance,
        "both": np.maximum(spread, chance),
        "test_set": np.maximum(spread - chance, 0.0),
    }[error]
    standard_error = np.sqrt(total)
    np.fill_diagonal(standard_error, 0.0)
    mean = difference.mean(-1)
    normal = NormalDist()
    reach = normal.inv_cdf(0.5 + prob / 2) * standard_error
    square = ("model", "reference")
    dataset = xarray.Dataset(
        {
            "difference": (square, mean),
            "standard_error": (square, standard_error),
            "lower": (square, mean - reach),
            "upper": (square, mean + reach),
            "probability": (square, np.vectorize(_probability)(mean, standard_error)),
            "mean": ("model", values.mean(-1)),
            "monte_carlo_error": (
                "model",
                np.array([evidence[name].monte_carlo_error() for name in names]),
            ),
            "flagged": ("model", np.array([evidence[name].share_flagged for name in names])),
        },
        coords={"model": names, "reference": names},
        attrs={"prob": prob, "error": error, "num_data": num_data},
    )
    return ModelComparison(dataset)


def _probability(mean: float, error: float) -> float:
    if error == 0:
        return 0.5 if mean == 0 else float(mean > 0)
    return NormalDist().cdf(mean / error)


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
    if error not in ("both", "monte_carlo", "test_set"):
        raise ValueError(f"error must be 'both', 'monte_carlo' or 'test_set', found {error!r}.")
    first, *others = evidence
    base = evidence[first].dataset.attrs
    for name in others:
        found = evidence[name].dataset.attrs
        if len(evidence[name]) != len(evidence[first]) or found["data"] != base["data"]:
            raise ValueError(
                f"'{first}' and '{name}' were evaluated on different data ({len(evidence[first])} and "
                f"{len(evidence[name])} of them; contents or order differ). Evaluate both on the same test set, "
                "binarised once."
            )
        for what in ("bound", "data_scale"):
            if found[what] != base[what]:
                raise ValueError(
                    f"'{first}' has {what} {base[what]!r} and '{name}' {found[what]!r}: their difference means nothing."
                )
