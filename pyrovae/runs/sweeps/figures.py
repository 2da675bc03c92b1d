"""The figures of a sweep, light and dark, as PNG files."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyrovae.runs.sweeps.table import Model

__all__ = ["forest", "time_figure"]

_DARK = {"ground": "#14171a", "text": "#e4e7ea", "line": "#59636e", "accent": "#82b7f0"}
_LIGHT = {"ground": "#ffffff", "text": "#1f2328", "line": "#a0a9b2", "accent": "#1a5fa8"}


@contextmanager
def _axes(path: Path, height: float, dark: bool) -> Iterator[tuple[Any, dict[str, str]]]:
    """Axes in the colours of the page, narrow enough to be read on a phone."""
    from matplotlib.figure import Figure

    colors = _DARK if dark else _LIGHT
    figure = Figure(figsize=(5.2, height), dpi=160, layout="constrained")
    figure.set_facecolor(colors["ground"])
    axes = figure.subplots()
    yield axes, colors
    axes.set_facecolor(colors["ground"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(colors["line"])
    axes.tick_params(colors=colors["text"], which="both", labelsize=9)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(colors["text"])
    figure.savefig(path, facecolor=colors["ground"])


def forest(models: Sequence[Model], path: Path, *, dark: bool = False) -> None:
    """Differences from the first model with their intervals, and those of single runs, as a PNG.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    with _axes(path, 0.75 + 0.54 * len(models), dark) as (axes, colors):
        axes.axvline(0, color=colors["line"], linewidth=1)
        best = models[0].numbers["mean"]
        for place, model in enumerate(models):
            runs = [row.evidence.mean() - best for row in model.rows if row.evidence is not None]
            axes.plot(runs, [place] * len(runs), "|", color=colors["line"], markersize=9)
            numbers = model.numbers
            if place and math.isfinite(numbers["lower"]):
                ends = [numbers["lower"], numbers["upper"]]
                axes.plot(ends, [place, place], color=colors["accent"], linewidth=2)
            filled = colors["accent"] if place else colors["text"]
            axes.plot(numbers["difference"], place, "o", color=filled, markersize=6)
            axes.annotate(
                _wrapped(model.name),
                (0, place),
                xycoords=("axes fraction", "data"),
                xytext=(0, 10),
                textcoords="offset points",
                color=colors["text"],
                fontsize=9,
            )
        axes.set_ylim(len(models) - 0.6, -0.75)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("log p(x) less that of the first model, nats per datum", fontsize=9)


def time_figure(models: Sequence[Model], path: Path, *, dark: bool = False) -> None:
    """log p(x) of every run against its time of training, as a PNG.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    colours = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2"]
    with _axes(path, 3.4 + 0.2 * len(models), dark) as (axes, colors):
        for i, model in enumerate(models):
            seconds = [row.facts["seconds"] for row in model.rows]
            means = [row.evidence.mean() for row in model.rows if row.evidence is not None]
            style = {"color": colours[i % len(colours)], "marker": "osDv^<>"[i // 7 % 7]}
            axes.plot(seconds, means, linestyle="", alpha=0.75, markersize=6, **style)
            axes.plot([], [], linestyle="", label=_wrapped(model.name), **style)
        axes.set_xlabel("seconds of training", fontsize=9)
        axes.set_ylabel("log p(x), nats per datum", fontsize=9)
        axes.grid(alpha=0.25, color=colors["line"])
        legend = axes.figure.legend(
            loc="outside lower center", fontsize=8.5, frameon=False, labelcolor=colors["text"]
        )
        legend.set_in_layout(True)


def _wrapped(name: str, width: int = 60) -> str:
    return name if len(name) <= width else f"{name[: width - 1]}…"
