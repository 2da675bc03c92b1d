"""What a sweep found: its runs, and the comparison of its models."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

from pyrovae import plots
from pyrovae.compare.checks import effort_of
from pyrovae.compare.models import ModelComparison, tabulate
from pyrovae.evidence import Evidence
from pyrovae.runs.sweeps.axes import in_words
from pyrovae.runs.sweeps.declaration import Declaration
from pyrovae.runs.sweeps.queue import latest
from pyrovae.runs.sweeps.study import open_study, quiet

__all__ = ["Group", "Row", "Sweep"]


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


class Sweep:
    """A sweep, as its folder and its study hold it.

    Args:
        folder: The folder.
        storage: The URL of the study's database; default the journal file in the folder.
        trust: Whether the sweep may name classes that are not pyrovae's own.

    Raises:
        FileNotFoundError: If the folder holds no sweep.
        ValueError: If it names such classes without ``trust``.

    Example:
        See :func:`sweep`, which makes it.
    """

    def __init__(self, folder: str | PathLike, storage: str | None = None, *, trust: bool = False):
        self.folder = Path(folder)
        if not (self.folder / "sweep.yaml").is_file():
            raise FileNotFoundError(f"{self.folder} holds no sweep: it has no sweep.yaml.")
        self.declaration = Declaration.load(self.folder / "sweep.yaml", trust=trust)
        with quiet():
            self.study: Any = open_study(self.folder, storage)

    @cached_property
    def rows(self) -> list[Row]:
        """The runs, in the order in which they were declared."""
        found = latest(self.study.get_trials(deepcopy=False)).values()
        rows = [self._row(trial) for trial in found]
        order = {model: i for i, model in enumerate(dict.fromkeys(row.model for row in rows))}
        return sorted(rows, key=lambda row: (order[row.model], row.seed))

    def _row(self, trial: Any) -> Row:
        name = trial.user_attrs.get("run")
        path = None if name is None else self.folder / "runs" / name
        state, reason, evidence = trial.state.name.lower(), trial.user_attrs.get("reason", ""), None
        if state == "complete" and path is not None:
            try:
                evidence = Evidence.load(path / "evidence.nc")
            except Exception as error:  # whatever a damaged file gives
                state, reason = "fail", f"Cannot read {path / 'evidence.nc'}: {error}"
        return Row(
            model=in_words(trial.params) or "the model",
            values=trial.params,
            seed=trial.user_attrs["seed"],
            state=state,
            reason=" ".join(reason.split()),
            path=path,
            facts=trial.user_attrs,
            evidence=evidence,
        )

    @cached_property
    def groups(self) -> list[Group]:
        """The models with evidence, apart where their evidence must not be compared; the largest
        group first.
        """
        found: dict[tuple, dict[str, list[Row]]] = {}
        abouts: dict[tuple, dict[str, Any]] = {}
        for row in self.rows:
            if row.evidence is not None:
                about = _about(row)
                abouts[key := tuple(about.values())] = about
                found.setdefault(key, {}).setdefault(row.model, []).append(row)
        groups = [_group(abouts[key], models) for key, models in found.items()]
        return sorted(groups, key=lambda group: -len(group.models))

    def apart(self) -> str:
        """In which respect the groups differ; empty for one group."""
        if len(self.groups) < 2:
            return ""
        names = [
            name
            for name in self.groups[0].about
            if len({str(group.about[name]) for group in self.groups}) > 1
        ]
        return " and ".join(names)

    def __repr__(self) -> str:
        from pyrovae.runs.sweeps.table import text

        return text(self)

    def _repr_html_(self) -> str:
        from pyrovae.runs.sweeps.table import html

        return html(self)

    def plot(self, axes: Any = None) -> Any:
        """Differences from the best model of the largest group, and single runs:
        :func:`pyrovae.plots.forest`.

        Raises:
            ValueError: If no run has evidence yet.
        """
        if not self.groups:
            raise ValueError(f"No run of {self.folder} has evidence yet: there is nothing to draw.")
        return plots.forest(self.groups[0].comparison, axes, runs=self.groups[0].means)

    def save(self) -> None:
        """Write ``sweep.csv``, the figures and ``sweep.html``, in place of those of before."""
        from pyrovae.runs.sweeps.page import write
        from pyrovae.runs.sweeps.table import write_csv

        write_csv(self, self.folder / "sweep.csv")
        write(self)


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
