"""The table of a sweep: on a terminal, and as CSV."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from pyrovae.compare.checks import effort_of
from pyrovae.compare.table import interval, known, share
from pyrovae.declare import html_table
from pyrovae.files import written_whole
from pyrovae.runs.sweeps.rows import Group, Row, unlike

__all__ = ["Model", "models_of", "text", "write_csv"]

COLUMNS = (
    "kind",
    "model",
    "seed",
    "state",
    "rank",
    "log_px",
    "monte_carlo_error",
    "test_set_error",
    "seeds_error",
    "num_seeds",
    "difference",
    "lower",
    "upper",
    "share_k_above_0.7",
    "method",
    "valid_bound",
    "seconds",
    "parameters",
    "group",
    "folder",
    "reason",
)
"""The columns of ``sweep.csv``, after which the axes follow."""


@dataclass(frozen=True)
class Model:
    """A declaration with the numbers of all its runs.

    Attributes:
        name: The values, in words.
        rows: Its runs with evidence.
        rank: Its rank in the group.
        group: The number of the group, counted from 1.
        numbers: Its row of the comparison, beside the best model.
        seconds: Of training, on average.
        parameters: That are trained.
    """

    name: str
    rows: list[Row]
    rank: str
    group: int
    numbers: dict[str, Any]
    seconds: float
    parameters: int


def models_of(group: Group, number: int) -> list[Model]:
    """The models of a group, best first."""
    table, found = group.comparison.dataset, []
    for i, (name, rank) in enumerate(zip(group.models, group.comparison.ranks(), strict=True)):
        rows = group.models[name]
        numbers = {
            str(key): value.item() for key, value in table.isel(model=i, reference=0).items()
        }
        seconds = math.fsum(row.facts["seconds"] for row in rows) / len(rows)
        parameters = int(rows[0].facts["parameters"])
        found.append(Model(name, rows, rank, number, numbers, seconds, parameters))
    return found


def text(name: str, rows: Sequence[Row], groups: Sequence[Group]) -> str:
    """The whole table of the sweep of that name."""
    lines = [summary(name, rows)]
    for number, group in enumerate(groups, 1):
        lines += ["", heading(groups, number)]
        lines += _models(models_of(group, number))
        lines += remarks(group)
    if len(groups) > 1:
        lines += ["", separate(groups)]
    return "\n".join([*lines, "", *_runs(rows)])


def html(name: str, rows: Sequence[Row], groups: Sequence[Group]) -> str:
    """The comparisons of the groups, and the table of the runs, as a notebook shows them."""
    tables = []
    for number, group in enumerate(groups, 1):
        tables += [f"<p>{escape(heading(groups, number))}</p>"]
        tables += [group.comparison._repr_html_()]
    lines = [
        (row.model, row.seed, what_became(row))
        if row.evidence is None
        else (row.model, row.seed, f"{row.evidence.mean():.3f}")
        for row in rows
    ]
    return "".join([*tables, html_table(summary(name, rows), lines, ("model", "seed", "log p(x)"))])


def heading(groups: Sequence[Group], number: int) -> str:
    """What the numbers of a group, counted from 1, are."""
    group = groups[number - 1]
    about = ", ".join(f"{name}: {group.about[name] or 'nothing'}" for name in unlike(groups))
    start = f"Group {number} ({about}): " if about else ""
    return (
        f"{start}log p(x) of {group.comparison.dataset.attrs['num_data']} test data in nats per "
        f"datum by {group.about['method or effort']}"
    )


def remarks(group: Group) -> list[str]:
    """What has to be said beside the numbers of a group."""
    prob = group.comparison.dataset.attrs["prob"]
    if len(group.models) == 1:
        return ["One model alone is compared with nothing."]
    return [
        f"Errors are standard errors. Differences are from the first, with {prob:.0%} intervals "
        "for all such data and all training seeds.",
        *group.comparison.remarks(),
    ]


def summary(name: str, rows: Sequence[Row]) -> str:
    """How many runs there are, and what became of them."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.state] = counts.get(row.state, 0) + 1
    words = {"complete": "complete", "fail": "failed"}
    parts = [f"{number} {words.get(state, state)}" for state, number in counts.items()]
    return f"Sweep {name}: {len(rows)} runs, {', '.join(parts)}"


def separate(groups: Sequence[Group]) -> str:
    """Why groups are not compared."""
    respects = " and ".join(unlike(groups))
    return f"Models of different groups differ in {respects}: their numbers must not be compared."


def _models(models: list[Model]) -> list[str]:
    width = max(12, *(len(model.name) for model in models))
    lines = [
        f"{'model':<{width}}  {'rank':>5}  {'log p(x)':>10}  {'± MC':>7}  {'± test':>7}  "
        f"{'± seeds':>7}  {'seeds':>5}  {'difference':>10}  {'interval':>20}  {'k > 0.7':>7}  "
        f"{'parameters':>10}  {'training':>9}"
    ]
    for i, m in enumerate(models):
        row = m.numbers
        first, second = (f"{row['difference']:.3f}", interval(row)) if i else ("", "")
        lines.append(
            f"{m.name:<{width}}  {m.rank:>5}  {row['mean']:>10.3f}  "
            f"{row['monte_carlo_error']:>7.3f}  {row['test_set_error']:>7.3f}  "
            f"{known(row['seeds_error']):>7}  {row['num_seeds']:>5}  {first:>10}  {second:>20}  "
            f"{share(row['flagged']):>7}  {m.parameters:>10,}  {m.seconds:>7.1f} s"
        )
    return lines


def _runs(rows: Sequence[Row]) -> list[str]:
    width = max([12, *(len(row.model) for row in rows)])
    lines = [
        f"{'run':<{width}}  {'seed':>4}  {'log p(x)':>10}  {'± MC':>7}  {'± test':>7}  "
        f"{'k > 0.7':>7}  {'valid':>10}  {'training':>9}  folder"
    ]
    for row in rows:
        start = f"{row.model:<{width}}  {row.seed:>4}  "
        if row.evidence is None:
            lines.append(f"{start}{what_became(row)}")
            continue
        found = row.evidence
        lines.append(
            f"{start}{found.mean():>10.3f}  {found.monte_carlo_error():>7.3f}  "
            f"{found.test_set_error():>7.3f}  {share(found.share_flagged):>7}  "
            f"{row.facts['valid_bound']:>10.3f}  {row.facts['seconds']:>7.1f} s  "
            f"{'' if row.path is None else row.path.name}"
        )
    return lines


def what_became(row: Row) -> str:
    """In words, of a run without evidence."""
    if row.state == "fail":
        return f"failed. {row.reason or 'It was interrupted.'}"
    return {"pruned": "pruned: others had a better validation bound"}.get(row.state, row.state)


def write_csv(
    path: Path, rows: Sequence[Row], groups: Sequence[Group], axes: Sequence[str]
) -> None:
    """A line for each run (kind ``run``), and one for each model over its seeds (``model``)."""
    numbers: dict[int, int] = {}
    lines: list[dict[str, Any]] = []
    for number, group in enumerate(groups, 1):
        for model in models_of(group, number):
            lines.append(_model_line(model))
            numbers |= {id(row): number for row in model.rows}
    lines += [_run_line(row, numbers.get(id(row))) for row in rows]
    with written_whole(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *axes], restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(lines)


def _model_line(model: Model) -> dict[str, Any]:
    numbers = model.numbers
    return {
        "kind": "model",
        "model": model.name,
        "rank": model.rank,
        "log_px": numbers["mean"],
        "monte_carlo_error": numbers["monte_carlo_error"],
        "test_set_error": numbers["test_set_error"],
        "seeds_error": "" if math.isnan(numbers["seeds_error"]) else numbers["seeds_error"],
        "num_seeds": numbers["num_seeds"],
        "difference": numbers["difference"],
        "lower": numbers["lower"],
        "upper": numbers["upper"],
        "share_k_above_0.7": numbers["flagged"],
        "method": numbers["effort"],
        "seconds": model.seconds,
        "parameters": model.parameters,
        "group": model.group,
        **model.rows[0].values,
    }


def _run_line(row: Row, group: int | None) -> dict[str, Any]:
    line: dict[str, Any] = {
        "kind": "run",
        "model": row.model,
        "seed": row.seed,
        "state": row.state,
        "group": "" if group is None else group,
        "folder": "" if row.path is None else f"runs/{row.path.name}",
        "reason": row.reason,
        **row.values,
    }
    line |= {name: row.facts.get(name, "") for name in ("valid_bound", "seconds", "parameters")}
    if row.evidence is not None:
        line |= {
            "log_px": row.evidence.mean(),
            "monte_carlo_error": row.evidence.monte_carlo_error(),
            "test_set_error": row.evidence.test_set_error(),
            "share_k_above_0.7": row.evidence.share_flagged,
            "method": effort_of(row.evidence),
        }
    return line
