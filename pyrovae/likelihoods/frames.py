"""Frames of pandas, polars and pyarrow as numbers, and back, by narwhals."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["check_names", "dtypes_of", "is_frame", "library_of", "read", "write"]


def is_frame(data: Any) -> bool:
    """Whether it is an eager data frame."""
    from narwhals.dependencies import is_into_dataframe

    return is_into_dataframe(data)


def library_of(frame: Any) -> str:
    """``"pandas"``, ``"polars"`` or ``"pyarrow"``.

    Raises:
        TypeError: If the frame is of another library.
    """
    import narwhals as nw

    library = str(nw.from_native(frame, eager_only=True).implementation)
    if library not in ("pandas", "polars", "pyarrow"):
        raise TypeError(
            f"Frames of pandas, polars and pyarrow are taken, found one of {library}. Convert it, "
            "for instance by frame.to_pandas()."
        )
    return library


def dtypes_of(frame: Any) -> dict[str, str]:
    """The names of the columns' types: those of pandas, and for others those of narwhals."""
    import narwhals as nw

    if library_of(frame) == "pandas":
        return {str(name): str(dtype) for name, dtype in frame.dtypes.items()}
    schema = nw.from_native(frame, eager_only=True).schema
    return {name: type(dtype).__name__ for name, dtype in schema.items()}


def check_names(names: Sequence[Any]) -> None:
    """Raise a TypeError unless columns are named by texts."""
    other = [name for name in names if not isinstance(name, str)]
    if other:
        raise TypeError(
            f"Columns are named by texts, found {other[0]!r}. Rename them, in pandas by "
            "frame.rename(columns=str)."
        )


def read(frame: Any, names: Sequence[str], categories: Mapping[str, Sequence[Any]]) -> np.ndarray:
    """``(N, D)`` numbers in float64; category k of K is k / (K - 1), a missing cell is NaN.

    Raises:
        TypeError: If a column holds something else than numbers, and has no categories.
        ValueError: If a column is not there, or a value is none of the categories.
    """
    import narwhals as nw

    library_of(frame)
    table = nw.from_native(frame, eager_only=True)
    check_names(table.columns)
    lacking = [name for name in names if name not in table.columns]
    if lacking:
        raise ValueError(
            f"The frame has no column {lacking[0]!r}, which Columns declares. Its columns are "
            f"{table.columns}."
        )
    found = np.empty((len(table), len(names)))
    for i, name in enumerate(names):
        column = table[name]
        if column.null_count() == len(column):  # of whatever type
            found[:, i] = np.nan
        elif name in categories:
            found[:, i] = _numbers(name, column, categories[name])
        elif column.dtype.is_numeric() or column.dtype == nw.Boolean:
            found[:, i] = _with_gaps(column) if column.null_count() else column.to_numpy()
        else:
            raise TypeError(
                f"Column {name!r} holds {column.dtype}, where its likelihood takes numbers. Give "
                "its values as categories, or convert it to numbers."
            )
    return found


def write(
    x: Tensor,
    names: Sequence[str],
    categories: Mapping[str, Sequence[Any]],
    dtypes: Mapping[str, str],
    library: Any,
    like: Any = None,
) -> Any:
    """A frame of ``(N, D)`` numbers: the inverse of :func:`read`.

    Args:
        x: Numbers. Those of columns of whole numbers or categories are rounded.
        names, categories: As :func:`read`.
        dtypes, library: What the frame is to be, where there is no ``like``.
        like: A frame of which it takes library, types and index.
    """
    import narwhals as nw

    if like is not None:
        library, own = library_of(like), nw.from_native(like, eager_only=True)
        # A column without any value has no type to keep.
        known = {name for name in own.columns if own[name].null_count() < len(own)}
        dtypes = {**dtypes, **{k: v for k, v in dtypes_of(like).items() if k in known}}
    numbers = x.detach().cpu().double().numpy()
    columns: dict[str, list[Any]] = {}
    for name, values in zip(names, numbers.T, strict=True):
        if name in categories:
            columns[name] = _labels(values, categories[name])
        else:
            columns[name] = _plain(values, dtypes.get(name, ""))
    table = nw.from_dict(columns, backend=library)
    if library == "pandas":
        return _as_pandas(table.to_native(), categories, dtypes, like)
    kinds = {name: _narwhals(dtypes[name], categories, name) for name in names if name in dtypes}
    if like is not None and library == "pyarrow":  # narwhals knows no index of a dictionary
        return _as_arrow(table.to_native(), {name: like.schema.field(name) for name in known})
    if like is not None:
        kinds |= {name: own.schema[name] for name in names if name in known}
    return table.select(
        nw.col(name).cast(kinds[name]) if name in kinds else nw.col(name) for name in names
    ).to_native()


def _numbers(name: str, column: Any, categories: Sequence[Any]) -> np.ndarray:
    places = {value: i / (len(categories) - 1) for i, value in enumerate(categories)}
    found = np.full(len(column), np.nan)
    gaps = missing(column)
    for i, (value, gap) in enumerate(zip(column.to_list(), gaps, strict=True)):
        if not gap:
            try:
                found[i] = places[value]
            except KeyError:
                raise ValueError(
                    f"Column {name!r} holds {value!r}, which is none of its categories "
                    f"{list(categories)}."
                ) from None
    return found


def missing(column: Any) -> list[bool]:
    """Which cells are null or NaN."""
    gaps = column.is_null()
    if column.dtype.is_float():
        gaps = gaps | column.is_nan().fill_null(True)
    return gaps.to_list()


def _with_gaps(column: Any) -> list[float]:
    gaps = column.is_null().to_list()
    return [np.nan if gap else v for v, gap in zip(column.to_list(), gaps, strict=True)]


def _labels(values: np.ndarray, categories: Sequence[Any]) -> list[Any]:
    last = len(categories) - 1
    return [
        None if np.isnan(v) else categories[int(np.clip(np.rint(v * last), 0, last))]
        for v in values
    ]


def _plain(values: np.ndarray, dtype: str) -> list[Any]:
    gaps = np.isnan(values)
    if kind := re.match(r"u?int\d+", dtype.lower()):
        ends = np.iinfo(kind[0])  # beyond them numbers would wrap around
        rounded = (None if gap else round(v) for v, gap in zip(values.tolist(), gaps, strict=True))
        return [None if v is None else min(max(v, int(ends.min)), int(ends.max)) for v in rounded]
    if "bool" in dtype.lower():
        return [None if gap else bool(v > 0.5) for v, gap in zip(values, gaps, strict=True)]
    return [None if gap else float(v) for v, gap in zip(values, gaps, strict=True)]


def _as_pandas(
    frame: Any, categories: Mapping[str, Sequence[Any]], dtypes: Mapping[str, str], like: Any
) -> Any:
    import pandas as pd

    for name in frame.columns:
        dtype: Any = dtypes.get(name)
        if dtype is None or (dtype.startswith(("int", "uint", "bool")) and frame[name].hasnans):
            continue  # such a column has no missing cells
        if like is not None and str(like[name].dtype) == dtype:
            dtype = like[name].dtype
        elif dtype == "category":
            dtype = pd.CategoricalDtype(list(categories[name]))
        frame[name] = frame[name].astype(dtype)
    if like is not None and len(frame) == len(like):
        frame.index = like.index
    return frame


def _as_arrow(table: Any, fields: Mapping[str, Any]) -> Any:
    import pyarrow as pa

    return table.cast(pa.schema([fields.get(field.name, field) for field in table.schema]))


def _narwhals(dtype: str, categories: Mapping[str, Sequence[Any]], name: str) -> Any:
    import narwhals as nw

    if dtype == "Enum":
        return nw.Enum(list(categories[name]))
    return getattr(nw, dtype)()
