"""Files with named columns: tables and AnnData objects."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from pyrovae.data.arguments import as_arguments
from pyrovae.data.frames import classes_of, covariates_of, read_frame
from pyrovae.data.rows import is_small

__all__ = ["SUFFIXES", "frame_of", "read_annotated", "read_table"]

SUFFIXES = (".csv", ".tsv", ".parquet")


def read_table(
    path: Path,
    *,
    columns: Sequence[str] | None = None,
    labels: str | None = None,
    covariates: Sequence[str] | None = None,
    reading: Callable[[Any], Any] | None = None,
) -> dict[str, Any]:
    """The data ``x`` and their ``columns``, and ``x_labels`` and ``classes`` where they are asked
    for.

    Args:
        path: A ``.csv``, ``.tsv`` or ``.parquet`` file, which is read as a whole.
        columns: Those that are the data; by default all but labels and covariates.
        labels: The column of the classes.
        covariates: Columns that are the condition: numbers as they are, and a column for each class
            of the others.
        reading: What makes numbers of the frame of the data, with NaN in missing cells; by default
            they must be numbers, and none missing.

    Raises:
        ImportError: If no library that reads it is installed.
        TypeError: If a column of the data holds no numbers.
        ValueError: If the file is damaged, a column is not there, or a cell is empty.
    """
    frame = read_frame(path)
    chosen = _chosen(frame, columns, labels, covariates, path)
    try:
        native = chosen.to_native()
        x = reading(native) if reading else as_arguments(native, name=path.name)[0]
    except TypeError as error:
        raise TypeError(
            f"{error} The data are chosen by columns= (--data_columns on the command line), or by "
            "naming the others in labels= or covariates=."
        ) from error
    return {"x": x, "columns": tuple(chosen.columns), **_condition(frame, labels, covariates, path)}


def frame_of(
    path: Path,
    *,
    columns: Sequence[str] | None = None,
    labels: str | None = None,
    covariates: Sequence[str] | None = None,
) -> Any:
    """The frame of the columns that are the data, as :func:`read_table` chooses them."""
    return _chosen(read_frame(path), columns, labels, covariates, path).to_native()


def _chosen(
    frame: Any,
    columns: Sequence[str] | None,
    labels: str | None,
    covariates: Sequence[str] | None,
    path: Path,
) -> Any:
    if columns is None:
        beside = {labels, *(covariates or ())}
        columns = [name for name in frame.columns if name not in beside]
    return frame.select(_known(columns, frame.columns, path))


def read_annotated(
    path: Path,
    *,
    layer: str | None = None,
    labels: str | None = None,
    covariates: Sequence[str] | None = None,
) -> dict[str, Any]:
    """As :func:`read_table`, of an ``.h5ad`` file; labels and covariates are columns of ``obs``.

    A large file is read batch by batch, unless a layer is asked for.

    Args:
        path: The file.
        layer: The layer that is the data; by default ``X``.
        labels, covariates: As for :func:`read_table`.

    Raises:
        ImportError: If AnnData is not installed.
        ValueError: If the file is damaged, or the layer or a column is not there.
    """
    try:
        import anndata
    except ImportError as error:
        raise ImportError(
            f"Reading {path} takes AnnData: pip install 'pyrovae[anndata]'.", name="anndata"
        ) from error
    large = not is_small(path.stat().st_size) and layer is None
    try:
        found = anndata.read_h5ad(path, backed="r" if large else None)
    except Exception as error:  # of HDF5 and of AnnData, each of its own class
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        raise ValueError(f"Cannot read {path}: {reason}. Is it an .h5ad file?") from error
    if layer is not None and layer not in found.layers:
        raise ValueError(
            f"{path} has no layer {layer!r}: found {', '.join(found.layers) or 'none'}."
        )
    (x,) = as_arguments(found.X if layer is None else found.layers[layer], name=path.name)
    names = tuple(map(str, found.var_names))
    return {"x": x, "columns": names, **_condition(found.obs, labels, covariates, path)}


def _condition(
    frame: Any, labels: str | None, covariates: Sequence[str] | None, path: Path
) -> dict[str, Any]:
    """What is given beside x: labels with their classes, or covariates."""
    import narwhals as nw

    if labels is not None and covariates:
        raise ValueError(
            f"Found labels={labels!r} and covariates={list(covariates)}. A condition is one of "
            "them: give labels among the covariates, which makes a column for each class."
        )
    frame = nw.from_native(frame, eager_only=True, pass_through=False)
    if labels is not None:
        (name,) = _known([labels], frame.columns, path)
        numbers, classes = classes_of(frame[name].to_native(), f"Column {name!r} of {path}")
        return {"x_labels": torch.from_numpy(numbers), "classes": classes}
    if covariates:
        chosen = frame.select(_known(covariates, frame.columns, path))
        return {"x_labels": torch.from_numpy(covariates_of(chosen, f"The covariates of {path}"))}
    return {}


def _known(names: Sequence[str], columns: Sequence[str], path: Path) -> list[str]:
    missing = [name for name in names if name not in columns]
    if missing or not names:
        raise ValueError(
            f"{path} has no column {', '.join(map(repr, missing)) or 'of data'}: found "
            f"{', '.join(map(repr, columns[:20]))}."
        )
    return list(names)
