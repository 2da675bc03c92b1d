"""The figure of a comparison of estimators."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray

__all__ = ["draw_comparison"]


def draw_comparison(dataset: "xarray.Dataset") -> Any:
    """Bounds with error bars beside the SNR of the model's and the guide's gradient.

    Against the number of particles, the latter on log axes, where it was swept; else one mark for each estimator.
    """
    from matplotlib.figure import Figure

    groups = [str(g) for g in dataset["group"].values if ":" not in str(g)]
    figure = Figure(figsize=(4.5 * (1 + len(groups)), 3.8), layout="constrained")
    axes = figure.subplots(1, 1 + len(groups), squeeze=False)[0]
    names = [str(name) for name in dataset["estimator"].values]
    level = dataset.attrs["log_marginal"]
    axes[0].axhline(level, color="0.5", linewidth=1, label="log p(x)")
    axes[0].set_ylabel("bound, nats per datum")
    if "num_particles" in dataset.dims:
        _against_particles(dataset, axes, names, groups)
    else:
        _side_by_side(dataset, axes, names, groups)
    return figure


def _against_particles(
    dataset: "xarray.Dataset", axes: Any, names: list[str], groups: list[str]
) -> None:
    counts = dataset["num_particles"].values
    for i, name in enumerate(names):
        row = dataset.sel(estimator=name)
        # Ten colours, then the same ones again in another line style.
        style = {
            "color": f"C{i % 10}",
            "linestyle": ("-", "--", ":", "-.")[i // 10 % 4],
            "marker": "o",
        }
        axes[0].errorbar(
            counts, row["bound"], 2 * row["bound_error"], markersize=3, label=name, **style
        )
        for axis, group in zip(axes[1:], groups, strict=True):
            snr = row["snr"].sel(group=group)
            axis.plot(
                counts, snr.where((snr > 0) & np.isfinite(snr)), markersize=3, label=name, **style
            )
    for axis, group in zip(axes[1:], groups, strict=True):
        axis.set(
            xscale="log", yscale="log", xlabel="particles", ylabel=f"SNR, gradient of the {group}"
        )
    axes[0].set(xscale="log", xlabel="particles")
    axes[0].figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside right center", fontsize="small"
    )


def _side_by_side(
    dataset: "xarray.Dataset", axes: Any, names: list[str], groups: list[str]
) -> None:
    places = np.arange(len(names))
    axes[0].errorbar(places, dataset["bound"], 2 * dataset["bound_error"], fmt="o")
    for axis, group in zip(axes[1:], groups, strict=True):
        snr = dataset["snr"].sel(group=group)
        axis.bar(places, snr.where(np.isfinite(snr)), width=0.6)
        axis.set(yscale="log", ylabel=f"SNR, gradient of the {group}")
    for axis in axes:
        axis.set_xticks(places, names, rotation=45, ha="right")
