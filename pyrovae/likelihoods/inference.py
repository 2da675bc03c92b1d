"""A declaration of columns from the types of a frame."""

import json
from typing import Any

import numpy as np

from pyrovae.likelihoods import frames
from pyrovae.likelihoods.base import Likelihood
from pyrovae.likelihoods.bernoulli import Bernoulli
from pyrovae.likelihoods.categorical import Categorical
from pyrovae.likelihoods.gaussian import Gaussian
from pyrovae.likelihoods.negative_binomial import NegativeBinomial

__all__ = ["declaration"]

_MOST_TEXTS = 100
_DIGITS = 4  # of a unit, to be read and edited


def declaration(frame: Any, missing: bool | None) -> dict[str, Any]:
    """The arguments of ``Columns`` for a frame; see ``Columns.infer``."""
    import narwhals as nw

    if not frames.is_frame(frame):
        raise TypeError(
            "Columns.infer takes a data frame of pandas, polars or pyarrow, found "
            f"{type(frame).__name__}."
        )
    library, dtypes = frames.library_of(frame), frames.dtypes_of(frame)
    table = nw.from_native(frame, eager_only=True)
    frames.check_names(table.columns)
    found: dict[str, Any] = {"columns": {}, "categories": {}, "units": {}}
    gaps, troubles = False, list[Exception]()
    for name in table.columns:
        hidden = frames.missing(table[name])
        gaps |= any(hidden)
        values = [v for v, gap in zip(table[name].to_list(), hidden, strict=True) if not gap]
        try:
            _infer(name, table[name].dtype, values, any(hidden), **found)
        except (TypeError, ValueError) as error:
            troubles.append(error)
    if troubles:
        raise type(troubles[0])(" ".join(map(str, troubles)) + _others([*found["columns"]]))
    found |= {"dtypes": dtypes, "library": library}
    found = {argument: value for argument, value in found.items() if value}
    return found | ({"missing": True} if (gaps if missing is None else missing) else {})


def _others(names: list[str]) -> str:
    """How to take these columns alone."""
    if not names:
        return ""
    listed = json.dumps(names, ensure_ascii=False)
    return f" To take the other columns alone: --data_columns '{listed}' on the command line."


def _infer(
    name: str,
    dtype: Any,
    values: list[Any],
    gaps: bool,
    columns: dict[str, Likelihood],
    categories: dict[str, list[Any]],
    units: dict[str, tuple[float, float]],
) -> None:
    """Add one column to the arguments of ``Columns``."""
    if not values:
        raise ValueError(f"Column {name!r} has no values. Leave it out.")
    kind = _kind(name, dtype, values, gaps)
    if kind == "categories":
        names = _categories(name, dtype, values)
        columns[name] = Bernoulli() if len(names) == 2 else Categorical(len(names))
        categories[name] = names
    elif kind == "truth":
        columns[name] = Bernoulli()
    elif kind == "counts":
        columns[name] = NegativeBinomial()
    else:
        units[name] = _unit(name, np.asarray(values, dtype=np.float64))
        columns[name] = Gaussian("learned")


def _kind(name: str, dtype: Any, values: list[Any], gaps: bool) -> str:
    import narwhals as nw

    if dtype == nw.Boolean:
        return "truth"
    # Without a type for whole numbers with gaps, pandas makes them floating point.
    whole = gaps and dtype.is_numeric() and all(float(v).is_integer() for v in values)
    if dtype.is_integer() or whole:
        return "counts" if min(values) >= 0 else "real"
    if dtype.is_numeric():
        return "real"
    if dtype in (nw.String, nw.Categorical) or isinstance(dtype, nw.Enum):
        return "categories"
    if all(isinstance(value, bool | str) for value in values):  # pandas' objects
        return "categories"
    raise TypeError(
        f"Column {name!r} holds {dtype}. Columns takes numbers, truth values, texts and categories:"
        " convert it (dates to days since some day, for instance), or leave it out."
    )


def _categories(name: str, dtype: Any, values: list[Any]) -> list[Any]:
    import narwhals as nw

    if isinstance(dtype, nw.Enum):
        found = [value for value in dtype.categories if value in set(values)]
    elif all(isinstance(value, bool) for value in values):
        found = [False, True]
    else:
        found = sorted(set(values), key=str)
    if len(found) < 2:
        raise ValueError(f"Column {name!r} holds {found[0]!r} alone. Leave it out.")
    if len(found) > _MOST_TEXTS:
        raise ValueError(
            f"Column {name!r} holds {len(found)} different texts in {len(values)} rows, such as "
            f"{found[0]!r}. If they name the rows, leave the column out; else join rare ones."
        )
    return found


def _unit(name: str, values: np.ndarray) -> tuple[float, float]:
    if not np.isfinite(values).all():
        raise ValueError(f"Column {name!r} holds infinite values. Remove or replace them.")
    loc, scale = (float(f"{v:.{_DIGITS}g}") for v in (values.mean(), values.std()))
    if scale == 0:
        raise ValueError(f"Column {name!r} holds {values[0]} alone. Leave it out.")
    return loc, scale
