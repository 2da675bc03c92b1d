"""Declared objects as plain values, and back."""

import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pyrovae.declare import Declared, is_loaded

__all__ = ["as_object", "as_plain", "only_here"]


def as_plain(value: Any, what: str = "the model") -> Any:
    """A declaration as dictionaries with ``class_path`` and ``init_args``, lists and plain values,
    as in the configuration of a run.

    Raises:
        TypeError: If an argument is neither declared nor plain, as a module is.
    """
    if isinstance(value, Declared):
        arguments = {
            name: as_plain(item, f"{name} of {type(value).__name__}")
            for name, item in value.declaration.items()
        }
        return {"class_path": _path(type(value)), "init_args": arguments}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"{what} is a dictionary whose keys are not all texts: {value!r}.")
        return {key: as_plain(item, f"{key!r} of {what}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(item, what) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"{what} cannot be written as a declaration: it is of type {type(value).__name__}. Give "
        "numbers, texts and declared parts; in place of a module, a recipe such as nets.MLP(300), "
        "or a subclass of nets.Recipe that builds the module."
    )


def as_object(plain: Any, where: str, *, trust: bool = False) -> Any:
    """A new object of what :func:`as_plain` gave.

    Args:
        plain: The value.
        where: What errors call the place that it is from.
        trust: Whether classes that are not pyrovae's own, and not loaded already, may be imported,
            which runs their code.

    Raises:
        ValueError: If there is no such class, or it is not pyrovae's own without ``trust``.
    """
    if not trust:  # before anything is imported
        for path in _paths(plain):
            # The parts of models are imported by now. The command line, for one, is not.
            own = path.startswith("pyrovae.") and path.rpartition(".")[0] in sys.modules
            if not own and not is_loaded(path, Declared):
                raise ValueError(
                    f"{where} names code that is not pyrovae's own: {path!r}. To load it runs that "
                    "code. If you trust it, give trust=True."
                )
    return _object(plain, where)


def only_here(plain: Any) -> list[str]:
    """Classes of what :func:`as_plain` gave that another process cannot import, such as those of a
    notebook.
    """
    return [path for path in _paths(plain) if not _is_found(path.partition(".")[0])]


def _is_found(module: str) -> bool:
    """Whether a module can be imported, loaded or not."""
    finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path)
    return any(find is not None and find(module, None) is not None for find in finders)


def _object(plain: Any, where: str) -> Any:
    if isinstance(plain, list):
        numbers = all(isinstance(item, int | float) for item in plain)
        # JSON has no tuples, and what sizes, shapes and units are given as are tuples.
        return tuple(plain) if numbers else [_object(item, where) for item in plain]
    if not isinstance(plain, dict):
        return plain
    if "class_path" not in plain:
        return {key: _object(item, where) for key, item in plain.items()}
    cls = _class(plain["class_path"], where)
    parameters = inspect.signature(cls).parameters
    arguments: Any = {k: _object(v, where) for k, v in plain.get("init_args", {}).items()}
    unknown = [name for name in arguments if name not in parameters]
    if unknown:
        raise ValueError(f"{where}: {cls.__name__} has no argument {unknown[0]!r}.")
    bound = inspect.BoundArguments(inspect.signature(cls), arguments)
    return cls(*bound.args, **bound.kwargs)


def _class(path: Any, where: str) -> type[Declared]:
    module, _, name = str(path).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (AttributeError, ImportError, ValueError) as error:
        raise ValueError(f"{where} names the class {path!r}, which cannot be found.") from error
    if not (isinstance(found, type) and issubclass(found, Declared)):
        raise ValueError(f"{where} names {path!r}, which is no part of a model.")
    return found


def _paths(plain: Any) -> Iterator[str]:
    if isinstance(plain, dict):
        if "class_path" in plain:
            yield str(plain["class_path"])
        plain = list(plain.values())
    if isinstance(plain, list):
        for item in plain:
            yield from _paths(item)


def _path(cls: type) -> str:
    """The public name where there is one, such as ``pyrovae.likelihoods.Gaussian``."""
    room = ".".join(cls.__module__.split(".")[:2])
    own = room.startswith("pyrovae.")
    if own and getattr(importlib.import_module(room), cls.__name__, None) is cls:
        return f"{room}.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"
