"""The figure of a comparison of estimators."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray

__all__ = ["draw_comparison"]

_LINES = ("-", "--", ":", "-.")
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")


def draw_comparison(dataset: "xarray.Dataset") -> Any:
    """Bounds with error bars beside the signal-to-noise ratio of the model's and the guide's
    gradient.

    Against the number of particles, the latter on log axes, where it was swept; else one mark for
    each estimator.
    """
    from matplotlib.figure import Figure

    groups = [str(g) for g in dataset["group"].values if ":" not in str(g)]
    figure = Figure(figsize=(4.5 * (1 + len(groups)), 3.8), layout="constrained")
    axes = figure.subplots(1, 1 + len(groups), squeeze=False)[0]
    names = [str(name) for name in dataset["estimator"].values]
    level = dataset.attrs["log_marginal"]
    axes[0].axhline(level, color="0.5", linewidth=1, zorder=0, label="log p(x)")
    axes[0].set_ylabel("bound in nats per datum (2 standard errors)")
    for axis, group in zip(axes[1:], groups, strict=True):
        axis.set_ylabel(f"signal-to-noise ratio, gradient of the {group}")
    if "num_particles" in dataset.dims:
        _against_particles(dataset, axes, names, groups)
    else:
        _side_by_side(dataset, axes, names, groups)
    return figure


def _against_particles(
    dataset: "xarray.Dataset", axes: Any, names: list[str], groups: list[str]
) -> None:
    counts = dataset["num_particles"].values.astype(float)
    for i, name in enumerate(names):
        row = dataset.sel(estimator=name)
        # Lines that fall on one another stay visible: other dashes, other marks, and a little to
        # the side.
        style = {
            "color": f"C{i % 10}",
            "linestyle": _LINES[i % len(_LINES)],
            "marker": _MARKS[i % len(_MARKS)],
            "markersize": 5,
            "markerfacecolor": "none",
        }
        aside = counts * 1.05 ** (i - (len(names) - 1) / 2)
        axes[0].errorbar(aside, row["bound"], 2 * row["bound_error"], label=name, **style)
        for axis, group in zip(axes[1:], groups, strict=True):
            snr = row["snr"].sel(group=group)
            axis.plot(aside, snr.where((snr > 0) & np.isfinite(snr)), label=name, **style)
    for axis in axes:
        axis.set(xscale="log", xlabel="particles")
        axis.set_xticks(counts, [f"{count:.0f}" for count in counts])
        axis.minorticks_off()
    for axis in axes[1:]:
        axis.set_yscale("log")
    axes[0].figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside right center", fontsize="small"
    )


def _side_by_side(
    dataset: "xarray.Dataset", axes: Any, names: list[str], groups: list[str]
) -> None:
    places = np.arange(len(names))
    axes[0].errorbar(places, dataset["bound"], 2 * dataset["bound_error"], fmt="o", capsize=3)
    axes[0].legend(fontsize="small")
    for axis, group in zip(axes[1:], groups, strict=True):
        snr = dataset["snr"].sel(group=group)
        axis.plot(places, snr.where((snr > 0) & np.isfinite(snr)), "o")
        axis.set_yscale("log")
        axis.grid(axis="y", alpha=0.3)
    for axis in axes:
        axis.set_xticks(places, names, rotation=45, ha="right")
        axis.set_xlim(-0.5, len(names) - 0.5)
