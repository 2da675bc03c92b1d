"""The latent space: where data lie in it, and what it decodes to."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyrovae.plots import tables
from pyrovae.plots.images import grid, is_image, show, span
from pyrovae.plots.style import GREY, MARKS, WIDTH, array, ink, one, palette, styled

__all__ = ["codes", "interpolation", "manifold", "traversal"]

_DRAWS = 10_000  # of the prior, for its quantiles


@styled
def codes(z: Any, labels: Any = None, axes: Any = None, *, names: Sequence[str] = ()) -> Any:
    """Codes of data in the plane, coloured by their labels.

    Of more than two dimensions, the two principal components are shown, with the share of the
    variance that each holds. The number or name of each class also stands at the median of its
    codes. Of one dimension, the histogram of each class is drawn.

    Args:
        z: ``(N, D)`` codes, such as ``vae.embed(x)``.
        labels: ``(N,)`` whole numbers for classes, or real numbers for a scale of colours.
        axes: Axes, or a figure; by default a new figure of pyplot.
        names: Names of the classes 0, 1, ...

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If the values are no numbers.
        ValueError: If z is not ``(N, D)``, or there are not as many labels.

    >>> import torch
    >>> axes = codes(torch.randn(30, 2), torch.arange(30) % 3)
    >>> [text.get_text() for text in axes.texts]
    ['0', '1', '2']
    """
    z = array(z)
    if z.ndim != 2 or not len(z):
        raise ValueError(f"Codes must have shape (N, D) with N of 1 or more, found {z.shape}.")
    y = None if labels is None else array(labels)
    if y is not None and y.shape != (len(z),):
        raise ValueError(f"{len(z)} codes take as many labels (N,), found shape {y.shape}.")
    place, axis_names = _plane(z)
    axes = one(axes, 4.2 if place.shape[1] == 2 else 3.2)
    whole = y is None or bool((y == np.round(y)).all())
    if not whole and place.shape[1] == 2:
        points = axes.scatter(*place.T, c=y, s=10, linewidths=0)
        axes.figure.colorbar(points, ax=axes, label="label")
    else:
        _classes(axes, place, np.zeros(len(z)) if y is None or not whole else y, names, y is None)
    axes.set(xlabel=axis_names[0], ylabel=axis_names[1])
    return axes


def _classes(
    axes: Any, place: np.ndarray, y: np.ndarray, names: Sequence[str], plain: bool
) -> None:
    values = np.unique(y)
    bins = np.histogram_bin_edges(place[:, 0], 30)
    for i, (value, colour) in enumerate(zip(values, palette(len(values)), strict=True)):
        some = place[y == value]
        name = names[int(value)] if 0 <= value < len(names) else f"{value:g}"
        if place.shape[1] == 1:
            axes.hist(some[:, 0], bins, histtype="step", color=colour, lw=1.5, label=name)
            continue
        mark = MARKS[(i + i // 10) % len(MARKS)]
        axes.plot(*some.T, mark, ms=3.5, mew=0, alpha=0.65, color=colour, label=name)
        if not plain:
            box = {"boxstyle": "round,pad=0.15", "fc": axes.get_facecolor(), "ec": colour}
            centre = np.median(some, axis=0)
            axes.text(*centre, name, ha="center", va="center", bbox=box, color=ink(), fontsize=9)
    if place.shape[1] == 1 and not plain:
        axes.legend()


def _plane(z: np.ndarray) -> tuple[np.ndarray, tuple[str, str]]:
    """Codes in at most two dimensions, and what these are."""
    if z.shape[1] == 1:
        return z, ("z", "data")
    if z.shape[1] == 2:
        return z, ("z[0]", "z[1]")
    centred = z - z.mean(0)
    variances, directions = np.linalg.eigh(centred.T @ centred)
    variances, directions = variances[::-1].clip(min=0), directions.T[::-1][:2]
    shares = variances[:2] / max(float(variances.sum()), 1e-300)
    # A direction has no sign of its own: let its largest entry be positive.
    signs = np.sign(directions[np.arange(2), np.abs(directions).argmax(1)])
    first, second = (
        f"{name} principal component ({share:.0%})"
        for name, share in zip(("first", "second"), shares, strict=True)
    )
    return centred @ (directions * signs[:, None]).T, (first, second)


@styled
def interpolation(vae: Any, start: Any, end: Any, axes: Any = None, *, steps: int = 9) -> Any:
    """What lies between data: E[x | z] on lines between the codes of two batches.

    Each row goes from a datum of ``start``, at the left, to one of ``end``, at the right, both as
    the model reconstructs them.

    Args:
        vae: A model with ``interpolate``, such as :class:`~pyrovae.VAE`.
        start, end: ``(B, *data_shape)`` data.
        axes: Axes, or a figure; by default a new figure of pyplot.
        steps: Points on each line, its ends included.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If the model cannot interpolate.
        ValueError: If ``steps < 2``.

    >>> import torch
    >>> import pyrovae as pv
    >>> vae, x = pv.VAE((8, 8), latent_dim=2), torch.rand(2, 8, 8).round()
    >>> axes = interpolation(vae, x[:1], x[1:], steps=5)
    >>> axes.get_images()[0].get_array().shape
    (144, 688, 3)
    """
    if not hasattr(vae, "interpolate"):
        raise TypeError(
            f"{type(vae).__name__} has no interpolate(start, end). Take a VAE or a ClusteringVAE."
        )
    path = array(vae.interpolate(start, end, steps)).swapaxes(0, 1)  # (B, steps, *data_shape)
    return _in_rows(path, axes)


@styled
def traversal(
    vae: Any,
    x: Any,
    axes: Any = None,
    *,
    units: Sequence[int] | None = None,
    steps: int = 9,
    reach: float = 3.0,
) -> Any:
    """What each latent element does: E[x | z] while one element of a datum's code changes.

    Each row changes one element from ``-reach`` to ``reach``, and leaves the others at the mean of
    q(z | x).

    Args:
        vae: A model with one latent z, such as :class:`~pyrovae.VAE`.
        x: One datum ``(1, *data_shape)``; a tuple ``(x, y)`` for a conditional model.
        axes: Axes, or a figure; by default a new figure of pyplot.
        units: The latent elements; by default the first ten.
        steps: Values of the element.
        reach: The largest value, on the scale of z.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If the model has several layers of latents.
        ValueError: If x is more than one datum, or there is no such element.

    >>> import torch
    >>> import pyrovae as pv
    >>> vae = pv.VAE((8, 8), latent_dim=2)
    >>> axes = traversal(vae, torch.rand(1, 8, 8).round(), units=[0, 1], steps=5)
    >>> [label.get_text() for label in axes.get_yticklabels()]
    ['z[0]', 'z[1]']
    """
    import torch

    size = _latent_dim(vae)
    units = list(range(min(size, 10))) if units is None else list(units)
    if not units or not all(0 <= unit < size for unit in units):
        raise ValueError(f"units must lie in 0 ... {size - 1}, found {units}.")
    x, *given = x if isinstance(x, tuple) else (x,)
    if len(x) != 1:
        raise ValueError(f"A traversal starts at one datum, found {len(x)}. Give x[:1].")
    with torch.no_grad():
        q = vae.encode(x, *given)
        try:
            centre = q.mean[0]
        except NotImplementedError:
            centre = q.sample((64,)).mean(0)[0]
        z = centre.repeat(len(units), steps, 1)
        values = torch.linspace(-reach, reach, steps, dtype=z.dtype, device=z.device)
        for row, unit in enumerate(units):
            z[row, :, unit] = values
        z = z.flatten(0, 1)
        path = array(vae.decode(z, *(y.repeat_interleave(len(z), 0) for y in given)))
    path = path.reshape(len(units), steps, *path.shape[1:])
    names = [f"z[{unit}]" for unit in units]
    return _in_rows(path, axes, names, [f"{value:.2g}" for value in values.tolist()])


@styled
def manifold(vae: Any, axes: Any = None, *, num: int = 12, seed: int = 0) -> Any:
    """The whole of a latent plane: E[x | z] on a grid of ``num`` times ``num`` values of z.

    Neighbours on an axis hold the same probability of the prior between them: the grid stands at
    the quantiles of each element, from 10,000 draws of the prior.

    Args:
        vae: A model of images with one latent of two dimensions and a prior that takes no
            condition.
        axes: Axes, or a figure; by default a new figure of pyplot.
        num: Images on each side.
        seed: Of the draws.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If the model has several layers of latents, or a condition.
        ValueError: If z has another dimension than two, or the data are no images.

    >>> import pyrovae as pv
    >>> axes = manifold(pv.VAE((8, 8), latent_dim=2), num=4)
    >>> axes.get_images()[0].get_array().shape  # four images each way, in colours
    (690, 690, 3)
    """
    import torch

    if _latent_dim(vae) != 2 or not is_image(vae.data_shape):
        raise ValueError(
            "A manifold takes images and latent_dim=2, found data_shape="
            f"{vae.data_shape} and latent_dim={vae.latent_dim}. Use plots.traversal."
        )
    if hasattr(vae, "condition_dim"):
        raise TypeError(f"{type(vae).__name__} has a condition. Use plots.traversal(vae, (x, y)).")
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        drawn = vae.prior().sample((_DRAWS,))
        quantiles = (torch.arange(num, device=drawn.device, dtype=drawn.dtype) + 0.5) / num
        first, second = drawn.quantile(quantiles, dim=0).T
        plane = torch.stack(torch.meshgrid(second.flip(0), first, indexing="ij")[::-1], -1)
        images = array(vae.decode(plane.flatten(0, 1)))
    low, high = span(images)
    picture = grid(images, columns=num, low=low, high=high)
    axes = one(axes, min(7.0, 0.4 + WIDTH * picture.shape[0] / picture.shape[1]))
    axes.imshow(picture)
    axes.grid(False)
    shown = np.unique([0, num // 4, num // 2, num - 1 - num // 4, num - 1])
    rows, columns = (np.round((shown + 0.5) * size / num) - 0.5 for size in picture.shape[:2])
    axes.set_xticks(columns, [f"{float(first[i]):.1f}" for i in shown])
    axes.set_yticks(rows, [f"{float(second[num - 1 - i]):.1f}" for i in shown])
    axes.set(xlabel="z[0]", ylabel="z[1]")
    return axes


def _latent_dim(vae: Any) -> int:
    size = getattr(vae, "latent_dim", None)
    if not isinstance(size, int):
        raise TypeError(f"This figure takes a model with one latent z, found {type(vae).__name__}.")
    return size


def _in_rows(
    path: np.ndarray, axes: Any, names: Sequence[str] = (), values: Sequence[str] = ()
) -> Any:
    """``(rows, steps, *data_shape)`` as a grid of images, or as a map of rows and columns."""
    num, steps = path.shape[:2]
    flat = path.reshape(num * steps, *path.shape[2:])
    if not is_image(path.shape[2:]):
        axes = tables.rows(flat, axes)
        axes.set_ylabel("steps, row after row")
        for row in range(1, num):
            axes.axhline(row * steps - 0.5, color=GREY, lw=1.5)
        if names:
            axes.set_yticks((np.arange(num) + 0.5) * steps - 0.5, names)
            axes.set_ylabel("")
        return axes
    low, high = span(flat)
    picture = grid(flat, columns=steps, low=low, high=high)
    height = min(7.0, (0.4 if names else 0.0) + WIDTH * picture.shape[0] / picture.shape[1])
    axes = show(one(axes, height), picture)
    if names:
        axes.set_axis_on()
        axes.grid(False)
        size = [picture.shape[0] / num, picture.shape[1] / steps]
        axes.set_yticks((np.arange(num) + 0.5) * size[0], names)
        axes.set_xticks((np.arange(steps) + 0.5) * size[1], values)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return axes
