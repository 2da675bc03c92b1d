"""Where the nats go: the parts of the bound, latent element by element, and against beta."""

from typing import Any

import numpy as np

from pyrovae.declare import number
from pyrovae.plots.style import GREY, ink, one, palette, styled

__all__ = ["nats", "rate_distortion", "units"]

_MOST_POINTS = 8

_NAMES = {
    "mutual_information": "KL: information on which datum it is",
    "marginal_kl": "KL: all codes together, against the prior",
    "kl": "KL",
}


@styled
def nats(found: Any, axes: Any = None) -> Any:
    """Where the nats go, as one bar: from the reconstruction down to the ELBO, and log p(x).

    The bar ends at E[log p(x | z)] on the right, and what it loses to the left is the KL, in its
    two parts, down to the ELBO. A line marks log p(x), where it is known: its distance from the
    left end is the inference gap.

    Args:
        found: What :func:`~pyrovae.where_the_nats_go` gives.
        axes: Axes, or a figure; by default a new figure of pyplot.

    Raises:
        ImportError: If matplotlib is not installed.

    >>> import pyrovae as pv
    >>> oracle = pv.testing.LinearGaussian(shift=0.5)
    >>> found = pv.where_the_nats_go(oracle.model, oracle.guide, oracle.sample(20))
    >>> axes = nats(found)
    >>> left = axes.patches[-1].get_x()  # of the part that reaches farthest down
    >>> bool(abs(left - found.mean("elbo")) < 1e-9)
    True
    """
    names = ["mutual_information", "marginal_kl"]
    if not np.isfinite(found.mean("mutual_information")):
        names = ["kl"]
    axes = one(axes, 2.3)
    end = right = found.mean("reconstruction")
    axes.axvline(end, color=GREY, lw=1)
    hatches = ("", "////")
    for name, colour, hatch in zip(names, palette(2), hatches, strict=False):
        # A part estimated below zero has no width; the number says so.
        left = found.mean("elbo") if name == names[-1] else right - max(found.mean(name), 0.0)
        bar: Any = {"color": colour, "hatch": hatch, "edgecolor": axes.get_facecolor(), "lw": 0}
        label = f"{_NAMES[name]}, {found.mean(name):.2f}"
        axes.barh(0, right - left, left=left, height=0.6, label=label, **bar)
        right = left
    if "log_marginal" in found.dataset:
        gap = found.mean("inference_gap")
        label = f"log p(x) {number(found.mean('log_marginal'), 2)}: inference gap {gap:.2f}"
        axes.plot([found.mean("log_marginal")] * 2, [-0.42, 0.42], color=ink(), lw=2, label=label)
    terms = (number(found.mean(name), 2) for name in ("elbo", "reconstruction", "kl"))
    axes.set_title("ELBO {} = reconstruction {} \N{MINUS SIGN} KL {}".format(*terms))
    axes.figure.legend(loc="outside lower center")
    axes.set(ylim=(-0.5, 0.5), yticks=[], xlabel="nats per datum")
    axes.locator_params(axis="x", nbins=5)  # so many of five figures have room
    axes.spines["left"].set_visible(False)
    axes.grid(False, axis="y")
    return axes


@styled
def units(found: Any, axes: Any = None) -> Any:
    """The latent elements by what they carry: KL of each, or its activity, largest first.

    Bars are the KL of an element, in nats, where the prior and the guide are independent over
    elements; else the activity, the variance of the guide's mean over data. Elements whose activity
    is 0.01 or less are grey: they are not active.

    Args:
        found: What :func:`~pyrovae.where_the_nats_go` gives.
        axes: Axes, or a figure; by default a new figure of pyplot.

    Raises:
        ImportError: If matplotlib is not installed.

    >>> import pyrovae as pv
    >>> oracle = pv.testing.LinearGaussian()
    >>> found = pv.where_the_nats_go(oracle.model, oracle.guide, oracle.sample(20))
    >>> len(units(found).patches) == found.dataset.sizes["unit"]
    True
    """
    activity = found.dataset["activity"].values
    values, name = activity, "activity (variance of the mean)"
    if "unit_kl" in found.dataset and np.isfinite(found.dataset["unit_kl"]).all():
        values, name = found.dataset["unit_kl"].values, "KL, nats per datum"
    order = np.argsort(-values, kind="stable")
    active = found.active[order]
    axes = one(axes, 3.0)
    place = np.arange(len(order))
    for some, colour, label in (
        (active, palette(1)[0], f"active: {active.sum()} of {len(order)}"),
        (~active, GREY, f"not active: {(~active).sum()}"),
    ):
        if some.any():
            axes.bar(place[some], values[order][some], color=colour, label=label)
    if len(order) <= 24:
        axes.set_xticks(place, [str(unit) for unit in order], fontsize=9 if len(order) < 17 else 7)
        axes.set_xlabel("latent element")
    else:
        axes.set_xticks([])
        axes.set_xlabel("latent elements, largest first")
    axes.grid(False, axis="x")
    axes.set_ylabel(name)
    axes.legend()
    return axes


@styled
def rate_distortion(dataset: Any, axes: Any = None) -> Any:
    """Rate and distortion against each other, at several beta.

    A dotted line holds the points of equal ELBO, -rate - distortion. Of more than eight points,
    some have a mark.

    Args:
        dataset: What :func:`pyrovae.evidence.rate_distortion` or
            :func:`pyrovae.evidence.annealed_rate_distortion` gives.
        axes: Axes, or a figure; by default a new figure of pyplot.

    Raises:
        ImportError: If matplotlib is not installed.

    >>> import xarray
    >>> columns = {"rate": ("beta", [9.0, 5.0]), "distortion": ("beta", [20.0, 26.0])}
    >>> axes = rate_distortion(xarray.Dataset(columns, coords={"beta": [0.5, 2.0]}))
    >>> [text.get_text() for text in axes.texts]
    ['β = 0.5', 'β = 2']
    """
    rate, distortion = dataset["rate"].values, dataset["distortion"].values
    axes = one(axes, 3.6)
    shown = _spread_out(rate, distortion)
    axes.plot(rate, distortion, "o-", color=palette(1)[0], markevery=shown.tolist())
    axes.margins(0.12)
    limits = axes.get_xlim(), axes.get_ylim()
    for i in shown:
        x, y, label = rate[i], distortion[i], "equal ELBO" if i == 0 else None
        axes.axline((x, y), slope=-1, color=GREY, lw=0.8, ls=":", label=label)
        text = f"β = {float(dataset['beta'][i]):.3g}"
        axes.annotate(text, (x, y), xytext=(6, 4), textcoords="offset points", fontsize=9)
    axes.set(xlim=limits[0], ylim=limits[1])
    axes.set(xlabel="rate: KL, nats per datum", ylabel="distortion, nats per datum")
    axes.legend()
    return axes


def _spread_out(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Numbers of at most eight points of a curve, about equally far from each other along it."""
    if len(x) <= _MOST_POINTS:
        return np.arange(len(x))
    # From the first point, not step by step, which noise would make longer.
    place = sum(np.abs(each - each[0]) / max(float(np.ptp(each)), 1e-12) for each in (x, y))
    return np.unique(np.abs(np.asarray(place)[:, None] - np.linspace(0, 2, _MOST_POINTS)).argmin(0))
