"""What a sweep found: its runs, and the comparison of its models."""

from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

from pyrovae import plots
from pyrovae.evidence import Evidence
from pyrovae.runs.sweeps import page, table
from pyrovae.runs.sweeps.axes import in_words
from pyrovae.runs.sweeps.declaration import Declaration
from pyrovae.runs.sweeps.queue import latest
from pyrovae.runs.sweeps.rows import Group, Row, grouped
from pyrovae.runs.sweeps.study import open_study, quiet

__all__ = ["Sweep"]


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
        """The models that may be compared with one another; the largest group first."""
        return grouped(self.rows)

    def __repr__(self) -> str:
        return table.text(self.folder.name, self.rows, self.groups)

    def _repr_html_(self) -> str:
        return table.html(self.folder.name, self.rows, self.groups)

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
        axes = [axis.option for axis in self.declaration.axes]
        table.write_csv(self.folder / "sweep.csv", self.rows, self.groups, axes)
        page.write(self.folder, self.rows, self.groups)
