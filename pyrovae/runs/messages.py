"""What is wrong with a configuration, in one line with the nearest right name."""

import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Iterable
from typing import Any, get_args

__all__ = ["class_names", "nearest", "one_line"]

# The parser lists every type that it tried; this is what says nothing of the mistake.
_NOISE = ("Does not validate", "Subtypes:", "Errors:", "Given value", "Problem with given")
_NO_CLASS = re.compile(r"(?:dot import path string|import path format): (\S+)")
_NO_OPTION = re.compile(r"class_path '([\w.]+)':\s+Option '([\w.]+)' is not accepted")
_NO_KEY = re.compile(r"(?:[Kk]ey|Option) '([\w.]+)' is not (?:accepted|expected)")

_LIST = "a list in brackets"
_KINDS = {
    "<class 'int'>": "int",
    "<class 'list'>": _LIST,
    "<class 'tuple'>": _LIST,
    "<class 'collections.abc.Sequence'>": _LIST,
}


def one_line(error: Exception, kinds: dict[str, Any], options: Iterable[str] = ()) -> str:
    """An error of the parser on one line.

    Args:
        error: What the parser raised.
        kinds: Base classes of the options that declare a class.
        options: Names of all options.
    """
    text = str(error)
    named = re.findall(r'Parser key "([\w.]+)"', text) or re.findall(r"--([\w.]+)\.help:", text)
    keys = [*dict.fromkeys(named)]
    where = ".".join(keys)
    if found := re.search(r"unrecognized arguments: --([\w.\-]+)", text, re.IGNORECASE):
        nested = _nested(found[1], kinds, options)
        close = f" Did you mean {nested}?" if nested else nearest(found[1], options, "--")
        return f"There is no option --{found[1]}.{close} See --help."
    if found := _NO_OPTION.search(text):
        module, _, name = found[1].rpartition(".")
        cls = getattr(importlib.import_module(module), name)
        close = nearest(found[2], inspect.signature(cls).parameters)
        more = f"See --{keys[0]}.help {name}; another class is named before its options."
        return f"{where}: {name} takes no {found[2]!r}.{close} {more}"
    every = {name for kind in kinds.values() for name in class_names(kind)}
    if (found := _NO_CLASS.search(text)) and found[1] not in every:
        names = class_names(kinds.get(where))
        listed = f"Choose one of {', '.join(dict.fromkeys(names))}" if names else "Choose another"
        close = nearest(found[1], names or every)
        more = f"{listed}, or module.Class of your own."
        return f"{where}: There is no class {found[1]!r}.{close} {more}"
    if found := _NO_KEY.search(text):
        return f"There is no option {found[1]!r}.{nearest(found[1], options)}"
    said = _innermost(text)
    if where:
        said = re.sub(r"the following arguments are required: (\w+)", rf"give --{where}.\1.", said)
    return f"{where}: {said}" if where else said


def _innermost(text: str) -> str:
    """What the parser says of the type that fits best, without the others that it tried."""
    lines = [line.strip().removeprefix("- ") for line in text.splitlines()]
    lines = [re.sub(r'^Parser key "[\w.]+"( element \d+)?:?\s*', "", line) for line in lines]
    lines = [x for x in lines if x and not x.startswith(_NOISE) and "NoneType" not in x]
    for poor in ("Import path", "Expected a dot", "Expected"):
        lines = [line for line in lines if not line.startswith(poor)] or lines
    said = " ".join(dict.fromkeys(lines))
    given = re.search(r"(?:Got value|Given value): (.+)", text)
    found = given[1] if given else "another value"
    found = re.sub(r"{'class_path': '(?:\w+\.)*(\w+)'.*", r"\1", found)
    if all(line.startswith("Import path") for line in lines):
        bases = " or ".join(re.findall(r"a subclass of (\w+)", said))
        return f"{found} is not a subclass of {bases}."
    if kinds := re.findall(r"Expected (?:an? )?(<class '[\w.]+'>|[\w.]+\[.+?\])", said):
        words = dict.fromkeys(_KINDS.get(kind, "") or _choice(kind) for kind in kinds)
        return f"Expected {' or '.join(words)}, found {found}."
    return said


def _choice(kind: str) -> str:
    """The values of a ``Literal`` as words; another type without what surrounds its name."""
    _, _, values = kind.partition("Literal")
    return f"one of {values.strip('[]')}" if values else kind.removeprefix("<class ").strip("'>")


def nearest(name: str, names: Iterable[str], prefix: str = "") -> str:
    """A question that names the most similar one, with a space before it; empty
    if none is similar.
    """
    known = {n.lower(): n for n in names}
    close = difflib.get_close_matches(name.lower(), known, 1)
    return f" Did you mean {prefix}{known[close[0]]}?" if close else ""


def _nested(name: str, kinds: dict[str, Any], options: Iterable[str]) -> str:
    """The options of classes that have this name as an argument, such as ``--method.seed``."""
    known = [option for option in options if option in kinds]
    taking = [option for option in known if _some_class_takes(kinds[option], name)]
    return " or ".join(f"--{option}.{name}" for option in taking)


def _some_class_takes(kind: Any, name: str) -> bool:
    if not isinstance(kind, type):
        return any(_some_class_takes(each, name) for each in get_args(kind))
    return any(
        name in inspect.signature(cls).parameters or _some_class_takes(cls, name)
        for cls in kind.__subclasses__()
    )


def class_names(kind: Any) -> list[str]:
    """Names of the classes that one of the base classes stands for."""
    if not isinstance(kind, type):
        return [name for each in get_args(kind) for name in class_names(each)]
    found = []
    for cls in kind.__subclasses__():
        family = sys.modules.get(".".join(cls.__module__.split(".")[:2]))
        if getattr(family, cls.__name__, None) is cls and not inspect.isabstract(cls):
            found += [cls.__name__] * cls.__module__.startswith("pyrovae.")
        found += class_names(cls)
    return sorted({*found})
