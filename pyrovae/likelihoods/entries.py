"""The parts of a declaration of columns, and its checks."""

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch.distributions import constraints

from pyrovae.likelihoods.base import Likelihood
from pyrovae.likelihoods.bernoulli import Bernoulli
from pyrovae.likelihoods.levels import Levels

__all__ = ["Entry", "categories_of", "check_keys", "entries_of"]


class Entry(NamedTuple):
    """A column, or a block of neighbouring columns, with one likelihood."""

    part: Likelihood
    names: tuple[str, ...]
    loc: float
    scale: float


def entries_of(
    columns: Mapping[str, Likelihood],
    blocks: Mapping[str, Sequence[str]],
    units: Mapping[str, Sequence[float]],
) -> list[Entry]:
    """An entry with a likelihood of its own for each name; arguments are those of ``Columns``."""
    if not isinstance(columns, Mapping) or not columns:
        raise ValueError(
            "Columns takes a dictionary from the name of each column to its likelihood, found "
            f"{columns!r}."
        )
    check_keys("blocks", blocks, columns)
    check_keys("units", units, columns)
    found = []
    for name, part in columns.items():
        if not isinstance(part, Likelihood):
            kind = part.__name__ if isinstance(part, type) else repr(part)
            raise TypeError(
                f"Column {name!r} needs a likelihood such as likelihoods.Gaussian(), found {kind}."
            )
        unit = _unit(name, part, units[name]) if name in units else (0.0, 1.0)
        found.append(Entry(copy.deepcopy(part), tuple(blocks.get(name, (name,))), *unit))
    names = [name for entry in found for name in entry.names]
    if not all(entry.names for entry in found) or len(set(names)) < len(names):
        raise ValueError(
            "Each block needs a column, and each column may stand once, found "
            f"{[list(entry.names) for entry in found]}."
        )
    return found


def categories_of(
    entries: Sequence[Entry], given: Mapping[str, Sequence[Any]]
) -> dict[str, list[Any]]:
    """The values of each column that has categories; whole numbers where none are given."""
    check_keys("categories", given, [name for entry in entries for name in entry.names])
    found = {}
    for part, names, *_ in entries:
        number = part.num_levels if isinstance(part, Levels) else 2
        for name in names:
            if name in given and not isinstance(part, Levels | Bernoulli):
                raise ValueError(f"Column {name!r} has categories, but {part!r} takes none.")
            if name in given and len(set(given[name])) != number:
                raise ValueError(
                    f"Column {name!r} has the categories {list(given[name])}, but {part!r} takes "
                    f"{number} different ones."
                )
            if name in given or isinstance(part, Levels):
                found[name] = list(given.get(name, range(number)))
    return found


def check_keys(argument: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise a ValueError for a name that is not known."""
    known = list(known)
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"{argument} names {unknown[0]!r}, which is none of {known}.")


def _unit(name: str, part: Likelihood, given: Sequence[float]) -> tuple[float, float]:
    loc, scale = map(float, given)
    if not (math.isfinite(loc) and math.isfinite(scale) and scale > 0):
        raise ValueError(
            f"The unit of {name!r} must be a location and a positive scale, found {given}."
        )
    positive = part.support is constraints.positive and loc == 0
    if not (part.support is constraints.real or positive):
        raise ValueError(
            f"Column {name!r} cannot have the unit {(loc, scale)}: {part!r} is not defined for "
            "scaled values. Real columns take any unit, positive ones (0, scale)."
        )
    return loc, scale
