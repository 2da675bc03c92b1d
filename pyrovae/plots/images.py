"""Data that the model draws, and data that it gives back."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyrovae.plots import tables
from pyrovae.plots.style import WIDTH, array, ink, one, panels, styled

__all__ = ["grid", "is_image", "pairs", "reconstructions", "samples", "show", "span"]


_WIDTH = 640  # pixels that a grid is enlarged towards


def is_image(shape: Sequence[int]) -> bool:
    """Whether data of this shape can be shown: ``(H, W)``, ``(1, H, W)`` or ``(3, H, W)``, at least
    4 x 4.
    """
    spatial = len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))
    return spatial and min(shape[-2:]) >= 4


def span(x: Any) -> tuple[float, float]:
    """What to show as black and white: [0, 1] where data lie in it, else their range."""
    low, high = float(x.min()), float(x.max())
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)


def grid(images: Any, *, columns: int = 8, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """``(rows, columns, 3)`` bytes: images in rows as one, enlarged by a whole factor towards 640
    pixels, so that single pixels stay square.

    Args:
        images: ``(N, *data_shape)`` with :func:`is_image` shapes.
        columns: Images in a row.
        low, high: Values shown black and white; what is beyond is clipped.
    """
    pixels = np.clip((array(images) - low) / max(high - low, 1e-12), 0, 1)
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels
    zoom = max(1, round(_WIDTH / (columns * pixels.shape[-1])))
    pixels = pixels.repeat(zoom, -1).repeat(zoom, -2)
    num, _, height, width = pixels.shape
    gap, rows = max(2, zoom // 2), -(-num // columns)
    whole = np.full((3, rows * (height + gap) + gap, columns * (width + gap) + gap), 0.5)
    for n, image in enumerate(pixels):
        top, left = gap + n // columns * (height + gap), gap + n % columns * (width + gap)
        whole[:, top : top + height, left : left + width] = image
    return np.rint(whole * 255).astype(np.uint8).transpose(1, 2, 0)


def pairs(data: Any, reconstructions: Any, columns: int) -> np.ndarray:
    """``(2N, *data_shape)``: a row of data, a row of their reconstructions, and so on."""
    data, seen = array(data), array(reconstructions)
    parts: list[np.ndarray] = []
    for first in range(0, len(data), columns):
        parts += [data[first : first + columns], seen[first : first + columns]]
    short = -len(data) % columns
    if short and len(data) > columns:  # the last row of data is filled, so that the next begins
        parts[-2] = np.concatenate([parts[-2], np.zeros((short, *data.shape[1:]))])
    return np.concatenate(parts)


def show(axes: Any, picture: np.ndarray) -> Any:
    """A picture on axes without ticks."""
    axes.imshow(picture)
    axes.set_axis_off()
    return axes


@styled
def samples(
    x: Any,
    axes: Any = None,
    *,
    data: Any = None,
    columns: int = 8,
    names: Sequence[str] = (),
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """Draws of a model; with ``data``, data of the same number beside them.

    Images become a grid. Tables are shown by the spread of each column, if there are data to
    compare them with (:func:`marginals`), and else as a map of rows and columns, in units of each
    column's standard deviation.

    Args:
        x: ``(N, *data_shape)`` draws, such as those of ``vae.sample(64)``.
        axes: Axes, or a figure; by default a new figure of pyplot.
        data: ``(M, *data_shape)`` data, which the left half shows.
        columns: Images in a row.
        names: Names of a table's columns.
        low, high: Values shown black and white; by default 0 and 1 where the data lie between
            them, else the range of ``data`` (of ``x`` without any).

    Returns:
        The axes, two for images beside data.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If the values are no numbers.
        ValueError: If there are no draws, or x and data have another shape.

    >>> import torch
    >>> axes = samples(torch.rand(16, 8, 8))
    >>> axes.get_images()[0].get_array().shape  # 2 rows of 8 images, ten times enlarged, with gaps
    (175, 685, 3)
    """
    x, like = _checked(x, "x"), None if data is None else _checked(data, "data")
    if like is not None and like.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"Draws have shape {x.shape[1:]} each, but data {like.shape[1:]}. Give draws of the "
            "model of these data."
        )
    if not is_image(x.shape[1:]):
        if like is not None:
            return tables.marginals(like, x, axes, names=names)
        return tables.rows(x, axes, names=names)
    found = span(x if like is None else like)
    ends = {"low": found[0] if low is None else low, "high": found[1] if high is None else high}
    if like is None:
        picture = grid(x, columns=columns, **ends)
        return show(one(axes, _height(picture)), picture)
    shown = (like[: len(x)], x[: len(like)])
    pictures = [grid(part, columns=columns, **ends) for part in shown]
    both = panels(axes, 1, 2, _height(pictures[0], WIDTH / 2) + 0.3)[0]
    for place, picture, title in zip(both, pictures, ("data", "samples"), strict=True):
        show(place, picture).set_title(title)
    return both


@styled
def reconstructions(
    data: Any,
    reconstructions: Any,
    axes: Any = None,
    *,
    columns: int = 10,
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """Data, and what the model makes of them.

    Images stand in pairs of rows: data above, their reconstructions below. Of tables, each cell is
    a point: its reconstruction against its value, both in units of the standard deviation of its
    column.

    Args:
        data: ``(N, *data_shape)``.
        reconstructions: ``(N, *data_shape)``, such as ``vae.reconstruct(data)``.
        axes: Axes, or a figure; by default a new figure of pyplot.
        columns: Images in a row.
        low, high: As for :func:`samples`.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If the values are no numbers.
        ValueError: If there are no data, or the two have other shapes.

    >>> import torch
    >>> x = torch.rand(5, 8, 8)
    >>> axes = reconstructions(x, 0.5 * x, columns=5)
    >>> picture = axes.get_images()[0].get_array()
    >>> int(picture[10, 10, 0]) == round(255 * float(x[0, 0, 0]))
    True
    """
    x, seen = _checked(data, "data"), _checked(reconstructions, "reconstructions")
    if x.shape != seen.shape:
        raise ValueError(
            f"Data have shape {x.shape}, but their reconstructions {seen.shape}. Give those of "
            "these data."
        )
    if not is_image(x.shape[1:]):
        return tables.agreement(x, seen, axes)
    columns = min(columns, len(x))
    found = span(x)
    ends = {"low": found[0] if low is None else low, "high": found[1] if high is None else high}
    picture = grid(pairs(x, seen, columns), columns=columns, **ends)
    axes = show(one(axes, _height(picture) + 0.3), picture)
    axes.set_title("data (upper row), reconstruction (lower row)", color=ink())
    return axes


def _checked(x: Any, what: str) -> np.ndarray:
    found = array(x)
    if found.ndim < 2 or not len(found):
        raise ValueError(
            f"{what} must have shape (N, *data_shape) with N of 1 or more, found {found.shape}."
        )
    return found


def _height(picture: np.ndarray, width: float = WIDTH) -> float:
    """Inches, at which the picture has the whole width."""
    return min(7.0, width * picture.shape[0] / picture.shape[1])
