"""Draws of a model as a file: a picture, an array or a table."""

from pathlib import Path
from typing import Any

from pyrovae import files
from pyrovae.plots.images import is_image, span
from pyrovae.runs import figures

__all__ = ["kinds_of", "save_draws"]


def kinds_of(vae: Any) -> tuple[str, ...]:
    """The endings of files that can hold draws of a model, the usual one first."""
    if getattr(vae.likelihood, "library", None) is not None:  # the columns of a frame
        return (".csv",)
    return (".png", ".npy") if is_image(vae.data_shape) else (".npy",)


def save_draws(draws: Any, file: Path, *, columns: int) -> None:
    """Write draws in the kind that the name of the file says.

    Args:
        draws: ``(N, *data_shape)``, or a frame.
        file: One that ends in one of :func:`kinds_of`.
        columns: Images in a row of a picture.
    """
    if file.suffix == ".png":
        low, high = span(draws)
        files.write(file, figures.image_grid(draws, columns=columns, low=low, high=high))
        return
    with files.written_whole(file) as part:
        if file.suffix == ".csv":
            import narwhals as nw
            from narwhals.selectors import by_dtype

            frame = nw.from_native(draws, eager_only=True)
            # Doubles of single numbers have digits that mean nothing.
            frame.with_columns(by_dtype(nw.Float64).cast(nw.Float32)).write_csv(part)
        else:
            import numpy

            numpy.save(part, draws.numpy())
