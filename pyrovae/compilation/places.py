"""Places that hold a value: ``owner.get(key)`` reads it, ``owner[key] = value`` writes it."""

import types
from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["MISSING", "Cell", "ClassAttributes", "Place", "Slots"]

MISSING: Any = type("Missing", (), {"__repr__": lambda self: "nothing"})()
"""The value of a place that is empty."""


class Place(NamedTuple):
    """A key of an owner, with the name of the owner and the value found there."""

    name: str
    owner: Any
    key: Any
    value: Any


class Cell:
    """The variable of an enclosing function."""

    def __init__(self, cell: types.CellType):
        self.cell = cell

    def get(self, key: str, default: Any = MISSING) -> Any:
        try:
            return self.cell.cell_contents
        except ValueError:  # not filled yet
            return default

    def __setitem__(self, key: str, value: Any) -> None:
        self.cell.cell_contents = value


class ClassAttributes:
    """What a class holds itself, not its bases."""

    def __init__(self, kind: type):
        self.kind = kind

    def get(self, key: str, default: Any = MISSING) -> Any:
        return vars(self.kind).get(key, default)

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self.kind, key, value)


class Slots:
    """Attributes of an object that stand in ``__slots__``."""

    def __init__(self, of: Any):
        self.of = of

    def items(self) -> Iterator[tuple[str, Any]]:
        for base in type(self.of).__mro__:
            for key, member in vars(base).items():
                if isinstance(member, types.MemberDescriptorType):
                    yield key, self.get(key)

    def get(self, key: str, default: Any = MISSING) -> Any:
        return getattr(self.of, key, default)

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self.of, key, value)
