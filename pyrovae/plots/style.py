"""The one look of all figures: width, letters, colours."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

__all__ = [
    "DARK",
    "GREY",
    "MARKS",
    "WIDTH",
    "array",
    "ink",
    "one",
    "palette",
    "panels",
    "style",
    "styled",
]

P = ParamSpec("P")
T = TypeVar("T")

WIDTH = 5.2
"""Width of every figure in inches: letters of 10 points can still be read on a phone."""

GREY = "#7d8790"
"""For what stands beside the numbers; it can be seen on white and on dark ground."""

MARKS = "osD^vPX*<>"
"""Each line has a mark of its own beside its colour."""

# Okabe and Ito's colours, which colour-blind people tell apart, and some more; beside each,
# what it becomes on dark ground.
_COLOURS = {
    "#0072B2": "#56B4E9",
    "#D55E00": "#F0803C",
    "#009E73": "#2CC295",
    "#CC79A7": "#E29BC2",
    "#E69F00": "#E6B04A",
    "#56B4E9": "#9AA8F0",
    "#8C6D31": "#C9AE6B",
    "#1f2328": "#e4e7ea",
    "#882255": "#D0708F",
    "#7d8790": "#a0a9b2",
}

_COMMON = {
    "figure.figsize": (WIDTH, 3.2),
    "figure.dpi": 150,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "image.cmap": "cividis",
    "image.interpolation": "nearest",
}
DARK = {**_COLOURS, "#ffffff": "#14171a"}
"""What each colour becomes on dark ground."""

_ACTIVE: ContextVar[bool] = ContextVar("active", default=False)


@contextmanager
def style(*, dark: bool = False) -> Iterator[None]:
    """The look of pyrovae's figures, for the duration of a ``with``.

    Every function of this module draws in this look by itself. Within ``style(dark=True)`` they
    draw on dark ground. Matplotlib's settings are those of before at the end.

    Args:
        dark: Light letters on dark ground.

    Raises:
        ImportError: If matplotlib is not installed.

    >>> import matplotlib
    >>> import pyrovae as pv
    >>> before = matplotlib.rcParams["figure.facecolor"]
    >>> with pv.plots.style(dark=True):
    ...     axes = pv.plots.codes([[0.0, 1.0], [1.0, 0.0]])
    >>> matplotlib.colors.to_hex(axes.figure.get_facecolor())
    '#14171a'
    >>> matplotlib.rcParams["figure.facecolor"] == before
    True
    """
    import matplotlib
    from matplotlib.rcsetup import cycler

    cycle = [*(DARK.values() if dark else DARK)]
    text, ground = cycle[7], cycle.pop()
    colours = {
        **{f"{name}.color": text for name in ("text", "xtick", "ytick")},
        **{f"axes.{name}color": text for name in ("label", "title")},
        "axes.edgecolor": GREY,
        "grid.color": GREY,
        **{f"{name}.facecolor": ground for name in ("figure", "axes", "savefig")},
        "axes.prop_cycle": cycler(color=cycle),
    }
    token = _ACTIVE.set(True)
    try:
        with matplotlib.rc_context({**_COMMON, **colours}):
            yield
    finally:
        _ACTIVE.reset(token)


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Let a function draw in the look of all figures, light unless it is called within
    :func:`style`.
    """

    @wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> T:
        with nullcontext() if _ACTIVE.get() else style():
            return draw(*args, **kwargs)

    return inside


def palette(num: int) -> list[str]:
    """As many colours; after ten they begin anew."""
    import matplotlib

    colours = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    return [colours[i % len(colours)] for i in range(num)]


def ink() -> str:
    """The colour of letters."""
    import matplotlib

    return matplotlib.rcParams["text.color"]


def one(axes: Any, height: float = 3.2) -> Any:
    """Axes to draw on: those given, or new ones of a given figure, or of pyplot's next figure."""
    if axes is None or hasattr(axes, "add_subplot"):
        return _figure(axes, height).add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def panels(axes: Any, rows: int, columns: int, height: float, **how: Any) -> np.ndarray:
    """``(rows, columns)`` axes, as :func:`one` finds them.

    Raises:
        ValueError: If there are not as many.
    """
    if axes is None or hasattr(axes, "add_subplot"):
        return _figure(axes, height).subplots(rows, columns, squeeze=False, **how)
    found = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
    if len(found) != rows * columns:
        raise ValueError(
            f"This figure takes {rows * columns} axes, found {len(found)}. Give as many, or a "
            "figure, or leave axes out."
        )
    for each in found:
        each.spines[["top", "right"]].set_visible(False)
    return found.reshape(rows, columns)


def _figure(figure: Any, height: float) -> Any:
    if figure is None:
        import matplotlib.pyplot as plt

        return plt.figure(figsize=(WIDTH, height), layout="constrained")
    if hasattr(figure, "set_size_inches"):  # a part of a figure has no size of its own
        figure.set_size_inches(WIDTH, height)
        figure.set_layout_engine("constrained")
    return figure


def array(values: Any) -> np.ndarray:
    """Numbers of any kind (tensors, frames, xarray, lists) as an array of floating-point numbers.

    Raises:
        TypeError: If they are no numbers.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() and values.itemsize < 4 else values
    elif hasattr(values, "to_numpy"):
        values = values.to_numpy()
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"A figure takes numbers, found {type(values).__name__} of other values. Turn texts "
            "into numbers first, such as by vae.read(frame)."
        ) from error
