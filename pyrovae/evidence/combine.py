"""Several runs of one method on one model and the same data, joined to one result."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyrovae.evidence.numbers import Numbers

_COUNTS = ("num_particles", "num_chains")
_AVERAGED = ("acceptance", "log_weight_variance", "pareto_k", "refinement_gain", "rounding_error")


def combine(evidence: Sequence[Numbers]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Columns and attributes of :meth:`Evidence.combine`."""
    settings = [one.settings for one in evidence]
    attributes = [one.dataset.attrs for one in evidence]
    _check(attributes, settings)
    if any(one.notes.get("exact") for one in evidence):
        raise ValueError("log p(x) is exact: there is nothing to combine.")
    counts = {name: sum(one[name] for one in settings) for name in _COUNTS if name in settings[0]}
    changed = {"settings": settings[0] | counts, "seed": _seeds(attributes)}
    return _combine_columns([one.columns for one in evidence]), {**attributes[0], **changed}


def _seeds(attributes: Sequence[dict[str, Any]]) -> list[int]:
    return [int(seed) for one in attributes for seed in np.atleast_1d(one["seed"])]


def _combine_columns(runs: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    r"""The columns of all weights together, from those of R runs with :math:`K_r` weights each.

    .. math:: \log \hat p = \log \sum_r \frac{K_r}{K} \hat p_r, \qquad K = \sum_r K_r

    Mean, standard error and effective sample size are exactly those of one run of K weights. The
    tail is not: k is the average of the runs' k, and the tail's errors are added as independent.
    """
    stacked = {name: np.stack([run[name] for run in runs]) for name in runs[0]}  # (R, B)
    counts = stacked["num_particles"].astype(float)
    num = counts.sum(0)
    share, logs = counts / num, stacked["log_marginal"]
    with np.errstate(divide="ignore", invalid="ignore"):
        log_marginal = np.logaddexp.reduce(logs + np.log(share), axis=0)
        relative = np.where(np.isfinite(log_marginal), np.exp(logs - log_marginal), 1.0)  # p_r / p
        within = (stacked["standard_error"] * relative) ** 2 * counts * (counts - 1)
        within = np.where(counts > 1, within, 0.0)  # the error of a single weight is not known
        squares = (within + counts * (relative - 1) ** 2).sum(0)
        error = np.where(num > 1, np.sqrt(squares / (num * np.maximum(num - 1, 1))), math.inf)
        found = {
            "log_marginal": log_marginal,
            "standard_error": np.where(np.isfinite(log_marginal), error, math.inf),
            "ess": np.where(np.isfinite(log_marginal), num / (1 + squares / num), 0.0),
            "num_particles": num.astype(np.int64),
        }
    for name in ("debiased", "debiased_twice"):  # the bias falls like 1 / K
        if name in stacked:
            shift = counts * (stacked[name] - logs)
            found[name] = log_marginal + shift.mean(0) / num
    found |= _tail(stacked, share, relative)
    for name in _AVERAGED:
        if name in stacked:
            found[name] = (share * stacked[name]).sum(0)
    return {name: found[name] for name in runs[0] if name in found}


def _tail(
    stacked: dict[str, np.ndarray], share: np.ndarray, relative: np.ndarray
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "unseen" in stacked:
        added = share * relative * np.expm1(np.minimum(stacked["unseen"], 700.0))
        found["unseen"] = np.log1p(np.hypot.reduce(added))  # squares would overflow
        found["unseen"][np.isinf(stacked["unseen"]).any(0)] = math.inf
    if "degrees_of_freedom" in stacked:
        variance = (share * relative * stacked["standard_error"]) ** 2
        total = (variance**2 / stacked["degrees_of_freedom"]).sum(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            degrees = variance.sum(0) ** 2 / total
        found["degrees_of_freedom"] = np.where(
            np.isfinite(degrees), degrees, stacked["degrees_of_freedom"].sum(0)
        )
    if "batch_log_mean" in stacked:  # (R, B, 8)
        with np.errstate(divide="ignore"):
            found["batch_log_mean"] = np.logaddexp.reduce(
                stacked["batch_log_mean"] + np.log(share)[..., None], axis=0
            )
    if "resolution" in stacked:
        found["resolution"] = stacked["resolution"].max(0)
    return found


def _check(attributes: Sequence[dict[str, Any]], settings: Sequence[dict[str, Any]]) -> None:
    """Refuse runs that differ in more than their seed and their number of weights."""
    if len(attributes) < 2:
        raise ValueError(f"combine takes two results or more, found {len(attributes)}.")
    first = attributes[0]
    for other in attributes[1:]:
        for what in ("data", "method", "bound", "data_scale", "num_dims"):
            if first[what] != other[what]:
                raise ValueError(
                    f"Results of one model, method and data can be combined; found {what} "
                    f"{first[what]!r} and {other[what]!r}."
                )
    if first["bound"] != "lower":
        raise ValueError(
            "Upper bounds of bdmc cannot be combined: they are no averages of independent weights."
        )
    kept = [{name: v for name, v in one.items() if name not in _COUNTS} for one in settings]
    for one in kept[1:]:
        if one != kept[0]:
            raise ValueError(
                f"Results of one method with the same settings can be combined; found {kept[0]} "
                f"and {one}."
            )
    seeds = _seeds(attributes)
    if len(set(seeds)) < len(seeds):
        raise ValueError(
            f"The results have the seeds {seeds}. The same seed gives the same weights again: "
            "evaluate with others."
        )
