"""What a configuration may name without being trusted: the package's own parts, and nothing else.

A configuration comes from a file, and a file may come from a stranger. A class that it names is
code, which runs as soon as its module is imported. So a configuration is looked through before
anything in it is imported.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace, get_loader

from pyrovae.declare import is_loaded
from pyrovae.runs.own_classes import file_and_name, path_of

__all__ = ["check_trusted", "names_code"]

_DEPTH = 20  # a configuration is no deeper; strings that hold YAML count as levels too
_TEXTS = 10_000  # nor longer; aliases in YAML make endless ones of a few lines


def check_trusted(content: Any, path: Path, bases: Sequence[type], fields: Sequence[str]) -> None:
    """Raise a ValueError if a configuration names code that is not the package's own.

    Classes that this process has loaded already, as subclasses of ``bases``, are no new code.

    Args:
        content: What the file holds, as YAML gives it.
        path: The file, for the message, and for paths relative to it.
        bases: What parts inherit from.
        fields: The names of the fields that declare a class.
    """
    for number, (field, text) in enumerate(_named(content, frozenset(fields))):
        if number > _TEXTS:
            raise ValueError(f"{path} is far too long for a configuration.")
        if not _is_part(text, tuple(bases), path.parent):
            file = file_and_name(text)
            where = f"the class {file[1]} of the file {file[0]}" if file else f"{text!r}"
            raise ValueError(
                f"{path} names code that is not pyrovae's own: {where}, as {field}. To use the "
                "configuration runs that code. If you trust it, give --trust, or trust=True in "
                "Python."
            )


def names_code(declared: Any) -> bool:
    """Whether what a configuration declares has a class in it that is not the package's own."""
    value = declared.as_dict() if isinstance(declared, Namespace) else declared
    if isinstance(value, list | tuple):
        return any(map(names_code, value))
    if not isinstance(value, dict):
        return False
    own = str(value.get("class_path", "pyrovae.")).startswith("pyrovae.")
    return not own or any(map(names_code, value.values()))


def _named(content: Any, fields: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Each text that could lead to an import, with the field that it stands in."""
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        for text in _texts(value, 0):
            # A file with a class is read wherever it stands, anything else only as a part.
            yield str(key), text if key in fields or file_and_name(text) else ""


def _texts(value: Any, depth: int) -> Iterator[str]:
    """Every text in a value at any depth, keys too, and what texts hold that are YAML themselves:
    the parser reads those as well.
    """
    if depth > _DEPTH:
        raise ValueError("The configuration is nested too deeply to be read.")
    if isinstance(value, dict):
        if value.get("class_path") == "pyrovae.likelihoods.Columns":
            value = {**value, "init_args": [*_of_columns(value.get("init_args"))]}
        for key, item in value.items():
            yield from _texts(key, depth + 1)
            yield from _texts(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item, depth + 1)
    elif isinstance(value, str):
        yield value
        try:
            inner = get_loader("yaml")(value)
        except (yaml.YAMLError, ValueError):
            return
        if inner != value and not isinstance(inner, int | float):
            yield from _texts(inner, depth + 1)


def _of_columns(given: Any) -> Iterator[Any]:
    """What of a table's columns could lead to an import: the names and the values of columns, which
    may well have dots in them, are read as plain texts.
    """
    if not isinstance(given, dict) or not isinstance(given.get("columns"), dict):
        yield given
        return
    for name, item in given.items():
        yield name
        if name == "columns":
            yield list(item.values())
            item = list(item)
        if name in ("blocks", "categories", "columns", "dtypes", "units"):
            yield [text for text in _texts(item, 0) if file_and_name(text)]
        else:
            yield item


def _is_part(text: str, bases: tuple[type, ...], folder: Path) -> bool:
    """Whether a text in the place of a class, or of its arguments, imports and reads nothing."""
    if place := file_and_name(text):
        file = folder / Path(place[0]).expanduser()
        return _is_file(file) and is_loaded(path_of(file, place[1]), bases)
    words = text.split(".")
    if len(words) > 1 and all(word.isidentifier() for word in words):
        return is_loaded(text, bases)
    # The parser reads a part from a file of its own, too.
    return not any(_is_file(place) for place in (Path(text), folder / text))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a name, or with a zero in it
        return False
