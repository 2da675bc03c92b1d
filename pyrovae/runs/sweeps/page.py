"""The page of a sweep: one HTML file that holds everything."""

import platform
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyrovae import files, plots
from pyrovae.compare.table import interval, known, share
from pyrovae.declare import number, with_minus
from pyrovae.runs import figures
from pyrovae.runs.page import made_by, write_page
from pyrovae.runs.pictures import Picture
from pyrovae.runs.sweeps import table
from pyrovae.runs.sweeps.rows import Group, Row
from pyrovae.runs.terminal import attempt

__all__ = ["write"]


def write(folder: Path, rows: Sequence[Row], groups: Sequence[Group]) -> None:
    """Write the figures and ``sweep.html``."""
    shown, pictures = [], {}
    for place, group in enumerate(groups, 1):
        models = table.models_of(group, place)
        drawn = _figures(folder, group, models, place)
        pictures |= drawn
        shown.append(
            {
                "heading": table.heading(groups, place),
                "verdict": _verdict(models),
                "models": [_model(model, i) for i, model in enumerate(models)],
                "remarks": table.remarks(group),
                "figures": [*drawn],
            }
        )
    write_page(
        folder / "sweep.html",
        template="sweep.html.jinja",
        title=f"Sweep {folder.name}",
        name=table.summary(folder.name, rows).partition(": ")[2],
        groups=shown,
        separate=table.separate(groups) if len(groups) > 1 else "",
        runs=[_run(row) for row in rows],
        declaration=(folder / "sweep.yaml").read_text(encoding="utf-8"),
        commands=[
            f"pyrovae sweep {shlex.quote(str(folder / 'sweep.yaml'))} "
            f"--out {shlex.quote(str(folder))}"
        ],
        figures=pictures,
        versions=made_by(platform.machine()),
    )


def _figures(
    folder: Path, group: Group, models: list[table.Model], place: int
) -> dict[str, Picture]:
    """Pictures by name, each beside its PNG in the folder."""
    means = group.means
    times = {m.name: ([row.facts["seconds"] for row in m.rows], means[m.name]) for m in models}
    shown = {
        "forest": (
            lambda figure: plots.forest(group.comparison, figure, runs=means),
            "Differences from the first model, with 95 % intervals for all such data and all "
            "training seeds. Short strokes are single runs.",
        ),
        "time": (
            lambda figure: plots.training_time(times, figure),
            "log p(x) of every run against its time of training.",
        ),
    }
    if len(models) == 1:
        del shown["forest"]
    found: dict[str, Picture] = {}
    for name, (draw, caption) in shown.items():
        name += "" if place == 1 else f"-{place}"

        def make(name: str = name, draw: Any = draw, caption: str = caption) -> None:
            drawing, content = figures.svg_and_png(draw)
            found[name] = Picture(drawing, caption)
            files.write(folder / f"{name}.png", content)

        attempt(f"{name}.png", make)
    return found


def _verdict(models: list[table.Model]) -> str:
    """What may be said, in a sentence."""
    best = [model for model in models if model.rank.partition("-")[0] == "1"]
    if len(models) == 1:
        return f"log p(x) of {models[0].name} is {number(models[0].numbers['mean'])}."
    if not best:
        return "One training seed a model ranks no models."
    if len(best) == 1:
        return f"{best[0].name} is better than every other model that is ranked here."
    names = "; ".join(model.name for model in best)
    return f"No model is shown to be better than these: {names}."


def _model(model: table.Model, place: int) -> dict[str, Any]:
    row = model.numbers
    return {
        "name": model.name,
        "rank": model.rank.replace("-", "\N{EN DASH}"),
        "mean": number(row["mean"]),
        "errors": [
            ("Monte Carlo", f"{row['monte_carlo_error']:.3f}"),
            ("test set", f"{row['test_set_error']:.3f}"),
            ("seeds", known(row["seeds_error"])),
        ],
        "seeds": row["num_seeds"],
        "difference": number(row["difference"]) if place else "",
        "interval": with_minus(interval(row)) if place else "",
        "flagged": share(row["flagged"]),
        "parameters": f"{model.parameters:,}",
        "seconds": f"{model.seconds:,.1f}",
    }


def _run(row: Row) -> dict[str, Any]:
    shown = {"model": row.model, "seed": row.seed, "what": "", "cells": [], "link": ""}
    if row.path is not None and (row.path / "report.html").is_file():
        shown["link"] = f"runs/{row.path.name}/report.html"
    if row.evidence is None:
        return {**shown, "what": table.what_became(row)}
    found = row.evidence
    cells = [
        number(found.mean()),
        f"{found.monte_carlo_error():.3f}",
        f"{found.test_set_error():.3f}",
        share(found.share_flagged),
        number(row.facts["valid_bound"]),
        f"{row.facts['seconds']:,.1f}",
    ]
    return {**shown, "cells": cells}
