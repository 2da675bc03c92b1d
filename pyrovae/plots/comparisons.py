"""Estimators side by side, and models in pairs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pyrovae.plots.style import GREY, MARKS, ink, one, palette, panels, styled

__all__ = ["estimators", "forest", "training_time"]

_LINES = ("-", "--", ":", "-.")


@styled
def estimators(found: Any, axes: Any = None) -> Any:
    """Bias of the bound, time, and signal-to-noise ratio (SNR) of the gradients of estimators.

    Against the number of particles, where it was swept; else one mark for each estimator. Lines
    that fall on one another stay visible: each has other dashes and marks, and stands a little
    aside.

    Args:
        found: What :func:`~pyrovae.compare_estimators` gives.
        axes: Axes, as many as there are panels, or a figure; by default a new figure of pyplot.

    Returns:
        Axes: bias of the bound with two standard errors, time of one gradient, and the SNR of the
        gradient of each group of parameters (model, guide).

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there are not as many axes.

    >>> import pyrovae as pv
    >>> oracle = pv.testing.LinearGaussian(shift=0.5)
    >>> table = pv.compare_estimators(
    ...     oracle.model, oracle.guide, oracle.sample(4), {"ELBO": pv.estimators.ELBO()},
    ...     num_replicates=10, reference_particles=100,
    ... )
    >>> [place.get_ylabel() or place.get_xlabel() for place in estimators(table)][0]
    'bias of the bound, nats/datum'
    """
    dataset = found.dataset
    groups = [str(group) for group in dataset["group"].values if ":" not in str(group)]
    swept = "num_particles" in dataset.dims
    names = [str(name) for name in dataset["estimator"].values]
    rows = -(-(2 + len(groups)) // 2)
    height = rows * (2.4 if swept else 0.9 + 0.28 * len(names)) + 0.4
    places = panels(axes, rows, 2, height, **({} if swept else {"sharey": "row"})).ravel()
    spare = places[2 + len(groups) :]
    shown = [("bias of the bound, nats/datum", dataset["bias"], dataset["bias_error"])]
    shown.append(("time of a gradient, ms", 1e3 * dataset["seconds"], None))
    for group in groups:
        snr = dataset["snr"].sel(group=group)
        shown.append((f"SNR, gradient of the {group}", snr, None))
    draw = _against_particles if swept else _side_by_side
    for place, (label, values, errors) in zip(places, shown, strict=False):
        draw(place, label, values, errors, names)
    for place in spare:
        place.set_axis_off()
    if swept:
        handles = places[0].get_legend_handles_labels()
        places[0].figure.legend(*handles, loc="outside upper center", ncols=min(4, len(names)))
    return places[: len(shown)]


def _against_particles(axes: Any, label: str, values: Any, errors: Any, names: list[str]) -> None:
    counts = values["num_particles"].values.astype(float)
    for i, (name, colour) in enumerate(zip(names, palette(len(names)), strict=True)):
        look: Any = {"color": colour, "marker": MARKS[i % len(MARKS)], "mfc": "none", "label": name}
        look["ls"] = _LINES[i % len(_LINES)]
        aside = counts * 1.05 ** (i - (len(names) - 1) / 2)
        row = values.sel(estimator=name)
        if errors is None:
            axes.plot(aside, row.where((row > 0) & np.isfinite(row)), **look)
        else:
            axes.errorbar(aside, row, 2 * errors.sel(estimator=name), **look)
    axes.set(xscale="log", xlabel="particles", ylabel=label)
    axes.set_xticks(counts, [f"{count:.0f}" for count in counts])
    axes.minorticks_off()
    if errors is None:
        _log_scale(axes, "y", values)
    else:
        axes.axhline(0, color=GREY, lw=1, zorder=0)


def _side_by_side(axes: Any, label: str, values: Any, errors: Any, names: list[str]) -> None:
    place = np.arange(len(names))
    if errors is None:
        shown = values.where((values > 0) & np.isfinite(values))
        axes.plot(shown.values, place, "o", color=palette(1)[0])
        _log_scale(axes, "x", values)
    else:
        axes.axvline(0, color=GREY, lw=1)
        axes.errorbar(
            values.values, place, xerr=2 * errors.values, fmt="o", capsize=2, color=palette(1)[0]
        )
    axes.set_yticks(place, names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(label)


def _log_scale(axes: Any, which: str, values: Any) -> None:
    """A log scale with few ticks, as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    axes.set(**{f"{which}scale": "log"})
    axis = getattr(axes, f"{which}axis")
    shown = np.asarray(values)[np.isfinite(values) & (np.asarray(values) > 0)]
    if len(shown) and shown.max() < 100 * shown.min():
        narrow = shown.max() < 5 * shown.min()
        axis.set_major_locator(MaxNLocator(4) if narrow else LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


@styled
def forest(
    found: Any,
    axes: Any = None,
    *,
    reference: str | None = None,
    runs: Mapping[str, Sequence[float]] | None = None,
) -> Any:
    """Paired differences of log p(x) from one model, with their intervals.

    Args:
        found: What :func:`~pyrovae.compare_models` gives.
        axes: Axes, or a figure; by default a new figure of pyplot.
        reference: The model that the others are compared with; by default the best.
        runs: Means of log p(x) of single runs, by model; they become short strokes.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there is no such model.

    >>> import pyrovae as pv
    >>> one, two = pv.testing.LinearGaussian(), pv.testing.LinearGaussian(noise=1.4)
    >>> x = one.sample(50)
    >>> table = pv.compare_models(
    ...     {
    ...         name: pv.log_marginal(oracle.model, oracle.guide, x, num_particles=50)
    ...         for name, oracle in {"one": one, "two": two}.items()
    ...     }
    ... )
    >>> [text.get_text() for text in forest(table).texts]
    ['one', 'two']
    """
    table = found.dataset
    names = [str(name) for name in table["model"].values]
    reference = names[0] if reference is None else reference
    if reference not in names:
        raise ValueError(f"There is no model {reference!r} among {names}.")
    axes = one(axes, 0.8 + 0.5 * len(names))
    level = float(table["mean"].sel(model=reference))
    axes.axvline(0, color=GREY, lw=1)
    for place, name in enumerate(names):
        row = table.sel(model=name, reference=reference)
        single = np.asarray((runs or {}).get(name, ()), float) - level
        axes.plot(single, [place] * len(single), "|", color=GREY, ms=9)
        colour = ink() if name == reference else palette(1)[0]
        ends = [float(row["lower"]), float(row["upper"])]
        if name != reference and np.isfinite(ends).all():
            axes.plot(ends, [place, place], color=colour, lw=2)
        mark = "D" if name == reference else "o"
        axes.plot(float(row["difference"]), place, mark, color=colour, ms=6)
        above: Any = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        axes.annotate(_short(name), (0, place), xytext=(0, 9), fontsize=9, **above)
    axes.set_ylim(len(names) - 0.6, -0.8)
    axes.set_yticks([])
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    best = "the best model" if reference == names[0] else "the reference"
    axes.set_xlabel(f"log p(x) less that of {best}, nats per datum")
    return axes


@styled
def training_time(runs: Mapping[str, tuple[Sequence[float], Sequence[float]]], axes: Any = None):
    """log p(x) of runs against the time of their training.

    Args:
        runs: Of each model, the seconds of its runs and their means of log p(x), in nats per datum.
        axes: Axes, or a figure; by default a new figure of pyplot.

    Raises:
        ImportError: If matplotlib is not installed.

    >>> axes = training_time({"small": ([1.0, 1.2], [-30.0, -31.0]), "large": ([9.0], [-25.0])})
    >>> [line.get_label() for line in axes.get_lines()]
    ['small', 'large']
    """
    axes = one(axes, 3.2 + 0.2 * len(runs))
    for i, ((name, (seconds, means)), colour) in enumerate(
        zip(runs.items(), palette(len(runs)), strict=True)
    ):
        look: Any = {"marker": MARKS[i % len(MARKS)], "color": colour, "alpha": 0.8, "ms": 6}
        axes.plot(seconds, means, ls="", label=_short(name), **look)
    axes.set(xlabel="seconds of training", ylabel="log p(x), nats per datum")
    axes.figure.legend(loc="outside lower center")
    return axes


def _short(name: str, width: int = 60) -> str:
    return name if len(name) <= width else f"{name[: width - 1]}…"
