"""What may be compared."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pyrovae.compare.table import ERRORS
from pyrovae.evidence.result import Evidence

__all__ = ["check", "check_effort", "effort_of"]


def check(evidence: Any, prob: float, error: str) -> dict[str, Evidence]:
    """The results by label, once nothing speaks against comparing them.

    Raises:
        TypeError, ValueError: As :func:`compare_models` says.
    """
    if not isinstance(evidence, Mapping):
        raise TypeError(
            f'compare_models takes a mapping {{"name": evidence}}, found {type(evidence).__name__}.'
        )
    if len(evidence) < 2:
        raise ValueError(f"A comparison takes two models or more, found {list(evidence)}.")
    if not 0 < prob < 1:
        raise ValueError(f"prob must lie between 0 and 1, found {prob}.")
    if error not in ERRORS:
        raise ValueError(f"error must be 'both', 'monte_carlo' or 'test_set', found {error!r}.")
    results = _results(evidence)
    first, *others = results
    for name in others:
        _check_alike(first, results[first], name, results[name])
    return results


def _results(evidence: Mapping[str, Any]) -> dict[str, Evidence]:
    """Every result with a label; that of the third seed of ``vamp`` is ``vamp[2]``."""
    results = {}
    for name, value in evidence.items():
        several = isinstance(value, Sequence) and not isinstance(value, str)
        if several and not value:
            raise ValueError(f"'{name}' has no evidence.")
        for i, one in enumerate(value if several else [value]):
            if not isinstance(one, Evidence):
                raise TypeError(
                    f"'{name}' must be an Evidence of log_marginal, or a list with one for each "
                    f"training seed, found {type(one).__name__}."
                )
            results[f"{name}[{i}]" if several else name] = one
        if several:
            _check_seeds(name, value)
    return results


def _check_seeds(name: str, runs: Sequence[Evidence]) -> None:
    """Two equal results are one run given twice: they would show no difference between seeds."""
    for i, one in enumerate(runs):
        for j in range(i):
            if np.array_equal(one.log_marginal.values, runs[j].log_marginal.values):
                raise ValueError(
                    f"'{name}' has the same evidence at {j} and {i}. Give one result for each "
                    "training seed."
                )


def _check_alike(first: str, base: Evidence, name: str, other: Evidence) -> None:
    if len(other) != len(base) or other.dataset.attrs["data"] != base.dataset.attrs["data"]:
        raise ValueError(
            f"'{first}' and '{name}' were evaluated on different data ({len(base)} "
            f"and {len(other)} of them; contents or order differ). Evaluate both on "
            "the same test set, binarised once."
        )
    for what in ("bound", "data_scale"):
        if other.dataset.attrs[what] != base.dataset.attrs[what]:
            raise ValueError(
                f"'{first}' has {what} {base.dataset.attrs[what]!r} and '{name}' "
                f"{other.dataset.attrs[what]!r}: their difference means nothing."
            )
    if base.measure and other.measure and other.measure != base.measure:
        raise ValueError(
            f"'{first}' gives x a {base.measure} and '{name}' a {other.measure}: their difference "
            "means nothing. Compare models of one kind, or dequantise: "
            "pv.VariationalDequantization gives grey levels a probability by a density."
        )


def check_effort(results: Mapping[str, Evidence]) -> None:
    """Raise a ValueError if methods or settings differ."""
    first, *others = results
    for name in others:
        if effort_of(results[first]) != effort_of(results[name]):
            raise ValueError(
                f"'{first}' was evaluated by {effort_of(results[first])} and '{name}' by "
                f"{effort_of(results[name])}. Estimates of different methods or effort have "
                "different biases, so that a model can come out better than itself. Evaluate both "
                "in the same way, or pass allow_unequal_effort=True."
            )


def effort_of(one: Evidence) -> str:
    """The method with its settings."""
    settings = ", ".join(f"{name}={value!r}" for name, value in one.settings.items())
    return f"{one.method}({settings})" if one.method else "unknown"
