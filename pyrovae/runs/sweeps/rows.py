"""The runs of a sweep, and the groups of models that may be compared with one another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyrovae.compare.checks import effort_of
from pyrovae.compare.models import ModelComparison, tabulate
from pyrovae.evidence import Evidence

__all__ = ["Group", "Row", "grouped", "unlike"]


@dataclass(frozen=True)
class Row:
    """A run of a sweep.

    Attributes:
        model: The values of its declaration, in words.
        values: The values, by option.
        seed: The training seed.
        state: ``"complete"``, ``"fail"``, ``"pruned"``, ``"running"`` or ``"waiting"``.
        reason: Why it failed.
        path: Its folder, where it has one.
        facts: ``valid_bound``, ``seconds`` of training, ``parameters``.
        evidence: Its held-out evidence, if it is complete.
    """

    model: str
    values: Mapping[str, Any]
    seed: int
    state: str
    reason: str
    path: Path | None
    facts: Mapping[str, Any] = field(repr=False)
    evidence: Evidence | None = field(repr=False)


@dataclass(frozen=True)
class Group:
    """Models that may be compared with one another.

    Attributes:
        about: What their evidence has in common.
        models: The runs of each model.
        comparison: Their comparison; of a single model, its errors.
    """

    about: Mapping[str, Any]
    models: Mapping[str, list[Row]]
    comparison: ModelComparison

    @property
    def means(self) -> dict[str, list[float]]:
        """Means of log p(x) of the runs of each model."""
        return {
            name: [row.evidence.mean() for row in rows if row.evidence is not None]
            for name, rows in self.models.items()
        }


def grouped(rows: Sequence[Row]) -> list[Group]:
    """The models with evidence, apart where their evidence must not be compared; the largest
    group first.
    """
    found: dict[tuple, dict[str, list[Row]]] = {}
    abouts: dict[tuple, dict[str, Any]] = {}
    for row in rows:
        if row.evidence is not None:
            about = _about(row)
            abouts[key := tuple(about.values())] = about
            found.setdefault(key, {}).setdefault(row.model, []).append(row)
    groups = [_group(abouts[key], models) for key, models in found.items()]
    return sorted(groups, key=lambda group: -len(group.models))


def unlike(groups: Sequence[Group]) -> list[str]:
    """In which respects groups differ; empty for one group."""
    if len(groups) < 2:
        return []
    return [
        name for name in groups[0].about if len({str(group.about[name]) for group in groups}) > 1
    ]


def _about(row: Row) -> dict[str, Any]:
    """What two results must have in common to be compared."""
    assert row.evidence is not None
    attrs = row.evidence.dataset.attrs
    return {
        "test data": f"{attrs['data']} ({len(row.evidence)})",
        "what x is given": attrs.get("given", ""),
        "the measure (probability or density)": row.evidence.measure,
        "the scale of the data": attrs["data_scale"],
        "the side of the bound": attrs["bound"],
        "method or effort": effort_of(row.evidence),
    }


def _group(about: dict[str, Any], models: dict[str, list[Row]]) -> Group:
    runs = {
        name: [row.evidence for row in rows if row.evidence is not None]
        for name, rows in models.items()
    }
    comparison = tabulate(runs)
    return Group(about, {name: models[name] for name in comparison.names}, comparison)
