"""Pictures of data that are no images: rows of numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyrovae.plots.style import GREY, array, ink, one, palette, styled

__all__ = ["agreement", "marginals", "rows"]

_MOST_COLUMNS = 12
_MOST_POINTS = 2_000
_QUANTILES = (5, 25, 50, 75, 95)


@styled
def marginals(data: Any, samples: Any, axes: Any = None, *, names: Sequence[str] = ()) -> Any:
    """Columns of a table: how data and a model's draws spread, side by side.

    A thin line goes from the 5 % to the 95 % quantile, a thick one over the middle half, and a mark
    stands at the median. Each column is in units of the mean and standard deviation of its data. Of
    more than 12 columns, those are shown that vary most relative to their mean.

    Args:
        data: ``(N, D)`` data; further dimensions count as columns. NaN is left out.
        samples: ``(M, D)`` draws.
        axes: Axes, or a figure; by default a new figure of pyplot.
        names: Names of the columns.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If the values are no numbers.
        ValueError: If the numbers of columns differ.

    >>> import torch
    >>> axes = marginals(torch.randn(100, 3), torch.randn(50, 3), names=["a", "b", "c"])
    >>> [label.get_text() for label in axes.get_yticklabels()]
    ['a', 'b', 'c']
    """
    both = [array(x).reshape(len(x), -1) for x in (data, samples)]
    num = both[0].shape[1]
    if both[1].shape[1] != num:
        raise ValueError(
            f"Data have {num} columns, but samples {both[1].shape[1]}. Give draws of the model of "
            "these data."
        )
    labels = list(names) if len(names) == num else [f"column {i}" for i in range(num)]
    mean, scale = _standard(both[0])
    chosen = np.arange(num)
    if num > _MOST_COLUMNS:
        relative = scale / np.maximum(np.abs(mean), 1e-12)
        chosen = np.sort(np.argsort(-relative)[:_MOST_COLUMNS])
    axes = one(axes, 1.1 + 0.36 * len(chosen))
    for part, label, colour, aside in zip(
        both, ("data", "samples"), palette(2), (-0.16, 0.16), strict=True
    ):
        ends = np.nanpercentile((part - mean) / scale, _QUANTILES, axis=0)[:, chosen]
        place = np.arange(len(chosen)) + aside
        axes.hlines(place, ends[0], ends[4], color=colour, lw=1.2)
        axes.hlines(place, ends[1], ends[3], color=colour, lw=4)
        mark = "o" if label == "data" else "D"
        axes.plot(ends[2], place, mark, color=colour, mec=ink(), mew=0.6, label=label)
    axes.set_yticks(np.arange(len(chosen)), [labels[i] for i in chosen])
    axes.set_ylim(len(chosen) - 0.5, -0.5)
    axes.set_xlabel("value, in standard deviations of the data")
    axes.figure.legend(loc="outside upper center", ncols=2)
    return axes


@styled
def rows(x: Any, axes: Any = None, *, names: Sequence[str] = ()) -> Any:
    """A map of rows and columns, each column in units of its mean and standard deviation.

    Args:
        x: ``(N, D)``; further dimensions count as columns.
        axes: Axes, or a figure.
        names: Names of the columns.
    """
    x = array(x).reshape(len(x), -1)
    mean, scale = _standard(x)
    axes = one(axes, 3.2)
    image = axes.imshow((x - mean) / scale, aspect="auto", vmin=-2.5, vmax=2.5)
    axes.grid(False)
    axes.set_ylabel("row")
    axes.yaxis.get_major_locator().set_params(integer=True)
    if len(names) == x.shape[1] <= _MOST_COLUMNS:
        axes.set_xticks(np.arange(len(names)), names, rotation=30, ha="right")
    else:
        axes.set_xlabel("column")
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.figure.colorbar(image, ax=axes, label="standard deviations", extend="both")
    return axes


def agreement(data: np.ndarray, seen: np.ndarray, axes: Any = None) -> Any:
    """Reconstruction against value of each cell, or of 2,000 cells drawn at random."""
    data, seen = data.reshape(len(data), -1), seen.reshape(len(seen), -1)
    mean, scale = _standard(data)
    x, y = ((part - mean) / scale for part in (data, seen))
    known = np.flatnonzero(np.isfinite(x.ravel()))
    if len(known) > _MOST_POINTS:
        known = np.random.default_rng(0).choice(known, _MOST_POINTS, replace=False)
    x, y = x.ravel()[known], y.ravel()[known]
    axes = one(axes, 3.6)
    axes.axline((0, 0), slope=1, color=GREY, lw=1, label="equal")
    axes.plot(x, y, "o", ms=3, alpha=0.5, mew=0, color=palette(1)[0], label="cells")
    axes.set_xlabel("data, in standard deviations of the column")
    axes.set_ylabel("reconstruction")
    axes.legend()
    return axes


def _standard(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column; 1 where all values are equal."""
    scale = np.nanstd(x, axis=0)
    return np.nanmean(x, axis=0), np.where(scale > 0, scale, 1.0)
