"""Data frames and series of pandas, polars and pyarrow as arrays, and the way back."""

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["as_given", "classes_of", "covariates_of", "from_frame", "read_frame"]

_GAPS = {"", "-", ".", "?", "#N/A", "N/A", "NA", "NULL", "NaN", "None", "n/a", "na", "nan", "null"}
"""What files write where a number is missing."""


def from_frame(data: Any, what: str, *, missing: bool = False) -> np.ndarray | None:
    """A frame as ``(N, C)`` floating-point numbers, a series as ``(N,)`` numbers; None for others.

    A frame becomes float32 where that loses nothing, and float64 else. A series of integers stays
    integer, so that it can hold labels.

    Args:
        data: Anything.
        what: What to call it in errors.
        missing: Whether missing cells become NaN.

    Raises:
        TypeError: If a column holds no numbers. The message names it.
        ValueError: If cells are missing, or two columns have one name.
    """
    import narwhals as nw

    try:
        frame = nw.from_native(data, eager_only=True, allow_series=True, pass_through=True)
        columns = [*frame.iter_columns()] if isinstance(frame, nw.DataFrame) else [frame]
    except nw.exceptions.DuplicateError as error:
        raise ValueError(f"{what} have two columns of one name. Rename one of them.") from error
    if not isinstance(columns[0] if columns else None, nw.Series):
        return None if columns else np.empty(frame.shape)
    _check_numeric(columns, what)
    gaps = {str(column.name): count for column in columns if (count := _num_missing(column))}
    if gaps and not missing:
        raise ValueError(
            f"{what} have missing cells: {_listed(f'{n} in {name!r}' for name, n in gaps.items())}."
            " Fill them, drop their rows, take likelihoods.Columns (--likelihood Columns), or "
            "train with a mask: see the page on missing values."
        )
    if isinstance(frame, nw.Series):
        return _numbers(frame) if not gaps else _floats(frame)
    small = (nw.Float32, nw.Boolean, nw.Int8, nw.Int16, nw.UInt8, nw.UInt16)
    dtype = np.float32 if all(column.dtype in small for column in columns) else np.float64
    found = np.empty((len(frame), len(columns)), dtype)
    for i, column in enumerate(columns):
        found[:, i] = _floats(column)
    return found


def _floats(series: Any) -> np.ndarray:
    """A series as floating-point numbers or what rounds to them, with NaN for gaps."""
    import narwhals as nw

    if series.dtype in (nw.Int128, nw.UInt128):  # which NumPy lacks
        series = series.cast(nw.Float64)
    found = series.to_numpy()  # no cast: pyarrow refuses one that rounds integers
    return series.cast(nw.Float64).to_numpy() if found.dtype == object else found


def _numbers(series: Any) -> np.ndarray:
    """A series without gaps, nullable or not, in its own kind of numbers."""
    import narwhals as nw

    found = series.to_numpy()
    if found.dtype != object:
        return found
    kind = nw.Float64 if series.dtype.is_float() or series.dtype.is_decimal() else nw.Int64
    return np.asarray(series.cast(kind).to_list())


def _check_numeric(columns: Sequence[Any], what: str) -> None:
    import narwhals as nw

    other = [c for c in columns if not (c.dtype.is_numeric() or c.dtype == nw.Boolean)]
    if other:
        named = _listed(f"{str(c.name)!r} ({c.dtype})" for c in other)
        raise TypeError(
            f"{what} have columns without numbers: {named}. Take likelihoods.Columns "
            "(--likelihood Columns), which gives each column a likelihood of its own: then vae.fit "
            "and vae.read take the frame. Or keep the numeric columns only, or convert the others: "
            "categories to labels or one column each, dates to numbers."
        )


def _num_missing(column: Any) -> int:
    import narwhals as nw

    gaps = int(column.null_count())
    if column.dtype in (nw.Float32, nw.Float64):  # where NaN may stand beside null
        gaps = int(np.isnan(column.to_numpy().astype(float)).sum())
    return gaps


def _listed(names: Any, most: int = 5) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def read_frame(path: Any) -> Any:
    """The frame in a ``.csv``, ``.tsv`` or ``.parquet`` file, by whichever library is installed.

    Texts such as ``NA`` among the numbers of a column are missing cells.

    Raises:
        ImportError: If no library that reads it is installed.
        ValueError: If the file is damaged or has no rows, its columns are separated otherwise, or
            its first line does not name them.
    """
    import importlib.util

    import narwhals as nw

    libraries: Any = ("polars", "pandas", "pyarrow")
    known = [name for name in libraries if importlib.util.find_spec(name)]
    if not known:
        raise ImportError(
            f"Reading {path} takes a library of tables: pip install 'pyrovae[tables]'.",
            name="pandas",
        )
    try:
        if path.suffix.lower() == ".parquet":
            return nw.read_parquet(str(path), backend=known[0])
        separator = "\t" if path.suffix.lower() == ".tsv" else ","
        _check_separator(path, separator)
        whole: Any = {"infer_schema_length": None} if known[0] == "polars" else {}
        frame = nw.read_csv(str(path), backend=known[0], separator=separator, **whole)
    except (ImportError, _OtherSeparator):
        raise
    except Exception as error:  # each library has its own
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        raise ValueError(f"Cannot read {path}: {reason}. Is it a table?") from error
    _check_names(frame, path)
    if not len(frame):
        raise ValueError(f"{path} has no rows, only the names of {len(frame.columns)} columns.")
    return frame.with_columns(*map(_with_gaps, frame.iter_columns()))


class _OtherSeparator(ValueError):
    """A table whose columns are separated by something else than its ending says."""


def _check_separator(path: Any, separator: str) -> None:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = file.readline()
    for other, name in ((";", "semicolons"), ("\t", "tabs"), (",", "commas")):
        if separator not in first and other in first:
            raise _OtherSeparator(
                f"The first line of {path} has {name} between the names of its columns. Save the "
                "table with commas as .csv or with tabs as .tsv, and with points in its numbers."
            )


def _with_gaps(column: Any) -> Any:
    """A column of texts as numbers, where each text is a number or stands for a missing one."""
    import narwhals as nw

    if column.dtype != nw.String:
        return column
    texts = ["" if text is None else text.strip() for text in column.to_list()]
    found = {text for text in texts if text not in _GAPS}
    if not found or not all(map(_is_number, found)):
        return column
    numbers = [None if text in _GAPS else float(text) for text in texts]
    return nw.new_series(column.name, numbers, nw.Float64, backend=column.implementation)


def _check_names(frame: Any, path: Any) -> None:
    names = list(frame.columns)
    if names and all(_is_number(name.replace("_duplicated_", "")) for name in names):
        raise ValueError(
            f"The first line of {path} holds numbers ({_listed(names, 3)}), and would be lost as "
            "names. Put a line with the names of the columns in front, or give an .npy file."
        )
    first = names[0] if names else None
    if first in ("", "Unnamed: 0") and frame[first].to_list() == list(range(len(frame))):
        raise ValueError(
            f"The first column of {path} has no name and counts the rows. Write the file without "
            "it (index=False in pandas), or choose columns by columns=."
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # Python reads 1_2 as 12


def classes_of(series: Any, what: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels ``(N,)`` counted from 0, and the names of the classes, in sorted order.

    Raises:
        ValueError: If the series holds real numbers or has missing cells.
    """
    import narwhals as nw

    series = nw.from_native(series, series_only=True)
    if series.null_count():
        raise ValueError(f"{what}: {series.null_count()} labels are missing. Drop those rows.")
    if series.dtype.is_float():
        raise ValueError(
            f"{what}: labels are classes, found real numbers. Give them as covariates."
        )
    values = series.to_list()
    names = sorted(set(values))
    numbers = {name: i for i, name in enumerate(names)}
    return np.array([numbers[value] for value in values]), tuple(map(str, names))


def covariates_of(frame: Any, what: str) -> np.ndarray:
    """``(N, C)``: numeric columns as they are, and one column for each class of the others."""
    import narwhals as nw

    columns = []
    for series in nw.from_native(frame, eager_only=True).iter_columns():
        if series.dtype.is_numeric():
            columns.append(from_frame(series.to_frame().to_native(), what))
        else:
            labels, names = classes_of(series.to_native(), what)
            columns.append(np.eye(len(names), dtype=np.float32)[labels])
    return np.concatenate(columns, 1).astype(np.float32)


def as_given(values: Any, data: Any, name: str = "z") -> Any:
    """Results for each datum in the form in which the data were given.

    Args:
        values: ``(N, D)`` or ``(N,)``, an array or a tensor.
        data: The data that they belong to.
        name: Of the columns: ``z0``, ``z1``, ..., or ``name`` itself for one number a datum.

    Returns:
        For a frame or series a frame of the same library (and the same index in pandas); for an
        AnnData object that object, with ``.obsm["X_" + name]``, or ``.obs[name]`` for one number a
        datum, written; for a NumPy array, a list or a sparse matrix a NumPy array; else a tensor.

    Raises:
        ValueError: If there are not as many values as data.

    >>> as_given(np.zeros((2, 1)), [[1.0, 2.0], [3.0, 4.0]]).shape
    (2, 1)
    """
    import narwhals as nw
    import torch

    first: Any = data[0] if isinstance(data, tuple) and data else data
    tensor = torch.as_tensor(values).detach()
    array = tensor.cpu().numpy()
    if type(first).__module__.startswith("anndata"):
        _check_length(array, first.n_obs)
        if array.ndim == 1:
            first.obs[name] = array
        else:
            first.obsm[f"X_{name}"] = array.reshape(len(array), -1)
        return first
    frame = nw.from_native(first, eager_only=True, allow_series=True, pass_through=True)
    if isinstance(frame, nw.DataFrame | nw.Series):
        _check_length(array, len(frame))
        flat = array.reshape(len(array), -1)
        names = [name] if array.ndim == 1 else [f"{name}{i}" for i in range(flat.shape[1])]
        columns = {column: flat[:, i] for i, column in enumerate(names)}
        made = nw.from_dict(columns, backend=frame.implementation)
        native: Any = made.to_native()
        index = nw.maybe_get_index(frame)
        if index is not None:
            native.index = index
        return native
    if isinstance(first, np.ndarray | list) or hasattr(first, "toarray"):
        return array
    return tensor


def _check_length(values: np.ndarray, size: int) -> None:
    if len(values) != size:
        raise ValueError(f"There are {len(values)} results for {size} data. Give the same data.")
