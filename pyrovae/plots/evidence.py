"""Held-out evidence, and whether to trust it."""

from typing import Any

import numpy as np

from pyrovae.declare import number
from pyrovae.plots.style import GREY, ink, one, palette, styled
from pyrovae.weights import BAD_K

__all__ = ["convergence", "evidence", "pareto_k", "ranks", "sandwich"]


@styled
def evidence(found: Any, axes: Any = None) -> Any:
    """log p(x) of each datum with two standard errors, from the least to the most probable.

    Data whose Pareto k is above 0.7 have a mark of their own: there log p(x) may be too low by more
    than the error says.

    Args:
        found: An :class:`~pyrovae.Evidence`.
        axes: Axes, or a figure; by default a new figure of pyplot.

    Raises:
        ImportError: If matplotlib is not installed.

    >>> import pyrovae as pv
    >>> oracle = pv.testing.LinearGaussian(shift=0.5)
    >>> found = pv.log_marginal(oracle.model, oracle.guide, oracle.sample(9), num_particles=50)
    >>> evidence(found).get_xlabel()
    'data, sorted by log p(x)'
    """
    values, errors = found.log_marginal.values, 2 * found.standard_error.values
    order = np.argsort(values, kind="stable")
    values, errors, place = values[order], errors[order], np.arange(1, len(values) + 1)
    bad = np.zeros(len(values), bool)
    if "pareto_k" in found.dataset:
        k = found.pareto_k.values[order]
        bad = np.isfinite(k) & (k > BAD_K)
    axes = one(axes)
    groups = [(~bad, palette(1)[0], ".", "each datum"), (bad, palette(2)[1], "x", "Pareto k > 0.7")]
    for some, colour, mark, label in groups:
        if some.any():
            marks: Any = {"ms": 4, "elinewidth": 0.8, "ls": "", "color": colour, "label": label}
            axes.errorbar(place[some], values[some], errors[some], marker=mark, **marks)
    mean = found.mean()
    if np.isfinite(mean):
        axes.axhline(mean, color=ink(), lw=1, ls=":", label=f"mean {number(mean, 2)}")
    given = "y" if found.dataset.attrs.get("given") else ""
    what = "log p(x | y)" if given else "log p(x)"
    axes.set(xlabel=f"data, sorted by {what}", ylabel=f"{what}, nats")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="lower right")
    return axes


@styled
def pareto_k(found: Any, axes: Any = None) -> Any:
    """How many data have which Pareto k: below 0.5 good, above 0.7 not to be trusted.

    What lies beyond -0.5 or 1.5 counts in the outermost bins.

    Args:
        found: An :class:`~pyrovae.Evidence` with a diagnosis by Pareto k.
        axes: Axes, or a figure; by default a new figure of pyplot.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If k is not known for any datum.

    >>> import pyrovae as pv
    >>> oracle = pv.testing.LinearGaussian(shift=0.5)
    >>> found = pv.log_marginal(oracle.model, oracle.guide, oracle.sample(9), num_particles=50)
    >>> int(sum(bar.get_height() for bar in pareto_k(found).patches))
    9
    """
    k = found.pareto_k.values if "pareto_k" in found.dataset else np.empty(0)
    k = k[np.isfinite(k)]
    if not len(k):
        raise ValueError(
            "No datum has a Pareto k: it takes 25 particles or more, and estimates that are not "
            "exact. There is nothing to draw."
        )
    axes = one(axes, 2.6)
    edges = np.linspace(-0.5, 1.5, 41)
    good, bad = palette(2)
    counts, _, bars = axes.hist(np.clip(k, -0.5, 1.5), edges, color=good)
    for bar, left in zip(bars, edges, strict=False):
        if left >= BAD_K - 1e-9:
            bar.set(facecolor=bad, hatch="///", edgecolor=axes.get_facecolor(), lw=0)
    axes.axvline(BAD_K, color=ink(), lw=1, ls=":")
    axes.set_title(f"{found.share_flagged:.1%} of the data have k above 0.7")
    axes.set(xlabel="Pareto k of a datum's weights", ylabel="data", ylim=(0, 1.08 * counts.max()))
    axes.yaxis.get_major_locator().set_params(integer=True)
    return axes


@styled
def sandwich(found: Any, axes: Any = None) -> Any:
    """How far the estimates from above lie over those from below, for each simulated datum.

    Args:
        found: A :class:`~pyrovae.Sandwich`.
        axes: Axes, or a figure; by default a new figure of pyplot.

    Raises:
        ImportError: If matplotlib is not installed.

    >>> import pyrovae as pv
    >>> oracle = pv.testing.LinearGaussian(shift=0.3)
    >>> method = pv.ImportanceSampling(50)
    >>> found = pv.bdmc(oracle.model, oracle.guide, num_data=9, method=method)
    >>> axes = sandwich(found)
    >>> [line.get_label() for line in axes.get_lines()][-1].startswith("mean gap")
    True
    """
    gap = found.gap.values
    order = np.argsort(gap, kind="stable")
    place, axes = np.arange(1, len(gap) + 1), one(axes)
    axes.vlines(place, np.minimum(gap[order], 0), np.maximum(gap[order], 0), color=GREY, lw=1)
    below, above = (2 * side.standard_error.values[order] for side in (found.below, found.above))
    for name, height, error, colour, mark in (
        ("from below", np.zeros(len(gap)), below, palette(1)[0], "o"),
        ("from above", gap[order], above, palette(2)[1], "s"),
    ):
        marks: Any = {"ms": 4, "elinewidth": 0.8, "ls": "", "marker": mark, "color": colour}
        axes.errorbar(place, height, error, label=name, **marks)
    axes.axhline(gap.mean(), color=ink(), lw=1, ls=":", label=f"mean gap {gap.mean():.3g}")
    axes.set_xlabel("simulated data, sorted by the gap")
    axes.set_ylabel("log p(x) above its lower\nestimate, nats (2 SE)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="upper left")
    return axes


@styled
def convergence(found: Any, axes: Any = None) -> Any:
    """How the importance estimate of log p(x) rises with the number of particles.

    Args:
        found: What :func:`pyrovae.evidence.convergence` gives.
        axes: Axes, or a figure; by default a new figure of pyplot.

    Raises:
        ImportError: If matplotlib is not installed.

    >>> import pyrovae as pv
    >>> oracle = pv.testing.LinearGaussian(shift=0.5)
    >>> found = pv.evidence.convergence(
    ...     oracle.model, oracle.guide, oracle.sample(5), num_particles=(1, 10, 100)
    ... )
    >>> convergence(found).get_lines()[0].get_xdata().tolist()
    [1, 10, 100]
    """
    axes = one(axes)
    counts = found.dataset["num_particles"].values
    lines = {
        "mean": ("estimate (a lower bound)", "o-"),
        "debiased": ("jackknife of order 1", "s--"),
        "debiased_twice": ("jackknife of order 2", "^:"),
    }
    for (name, (label, look)), colour in zip(lines.items(), palette(3), strict=True):
        values = found.dataset[name].values
        axes.plot(counts, values, look, mfc="none", color=colour, label=label)
    axes.set(xscale="log", xlabel="particles K", ylabel="log p(x), nats per datum")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    axes.legend()
    return axes


@styled
def ranks(found: Any, axes: Any = None) -> Any:
    """The histogram of the ranks of each latent element; for the posterior, 99 % of the counts lie
    inside the grey band.

    Args:
        found: What :func:`pyrovae.evidence.calibration` gives.
        axes: Axes, or a figure; by default a new figure of pyplot.

    Raises:
        ImportError: If matplotlib is not installed.

    >>> import pyrovae as pv
    >>> oracle = pv.testing.LinearGaussian()
    >>> found = pv.evidence.calibration(oracle.model, oracle.guide, num_data=100)
    >>> ranks(found).get_xlim() == (0, 1)
    True
    """
    from scipy.stats import binom

    axes = one(axes)
    counts, shares = found.histogram()
    num = len(found.dataset["rank"])
    edges = np.concatenate([[0.0], np.cumsum(shares)])
    low, high = (np.append(end, end[-1]) for end in binom.interval(0.99, num, shares))
    axes.fill_between(
        edges, low, high, step="post", color=GREY, alpha=0.35, lw=0, label="99 % band"
    )
    for i, column in enumerate(counts.T):
        alpha = max(0.2, 1 / counts.shape[1])
        label = "a latent element" if i == 0 else None
        axes.stairs(column, edges, alpha=alpha, color=palette(1)[0], lw=1.5, label=label)
    axes.set(xlabel="rank of the true value, as a share of the draws", ylabel="simulated data")
    axes.set(xlim=(0, 1), ylim=(0, None))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return axes
