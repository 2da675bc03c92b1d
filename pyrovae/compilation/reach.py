"""Where the Python values stand that programs can read: attributes, variables, items."""

import argparse
import collections
import dataclasses
import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyrovae.compilation.places import MISSING, Cell, ClassAttributes, Place, Slots

__all__ = ["Reach"]

# Attributes of every module that hold containers rather than settings.
_CONTAINERS = frozenset(nn.Module().__dict__) - {"training"}
_ATOMS = (bool, int, float, complex, str, bytes, type(None), Tensor, torch.dtype, torch.device)
_ITEMS = (dict, list, tuple, set, collections.deque)
_FOLLOWED = (
    nn.Module,
    Messenger,
    torch.distributions.Distribution,
    functools.partial,
    types.FunctionType,
    types.MethodType,
    types.SimpleNamespace,
    argparse.Namespace,
    collections.UserDict,
    collections.UserList,
    *_ITEMS,
)
"""What is followed wherever it stands, although its class may belong to a library."""
_CLOSED = frozenset(sys.stdlib_module_names) | {"numpy", "pyro", "torch"}
_OURS = __name__.partition(".")[0]
_ANY_NAME = {"__dict__", "attrgetter", "getattr", "vars"}
"""Names in code that may read an attribute without its name."""
_MAKING = {"__init__", "__new__", "__post_init__", "__init_subclass__"}
_PRINTING = {"__repr__", "__str__", "__del__", "__reduce__", "__getstate__", "__setstate__"}


class Reach:
    """All that programs can read, as far as it can be told without running them.

    Followed are the attributes, parameters and buffers of modules; other objects, and the classes
    of the user's own; variables that functions close over, globals that they name, and the
    functions and modules of the user's own among these; the items of containers. What an attribute
    holds is not followed where only the code of libraries could read it, as that of a trainer.

    Args:
        roots: Programs, modules, handlers, estimators.
        libraries: Whether to follow objects of installed libraries, such as those that hold
            configurations.

    Attributes:
        places: Where single values stand.
        items: Lists, sets and queues, each with its name. Their items are not among the places.
        arrays: NumPy arrays, each with its name.
        things: All objects that were met, in an order that does not depend on the process.
        closed: Those among them that are not followed, each with its name.
        unread: The places whose values only the code of libraries could read.
    """

    def __init__(self, *roots: Any, libraries: bool = True):
        self.places: list[Place] = []
        self.items: list[tuple[str, Any]] = []
        self.arrays: list[tuple[str, np.ndarray]] = []
        self.closed: list[tuple[str, Any]] = []
        self._libraries = libraries
        self._seen: dict[int, Any] = {}  # holds them too, so that no id comes twice
        self._names = {"forward"}  # that the user's code mentions, or torch calls
        self._classes: set[tuple[type, bool]] = set()
        self._read: set[tuple[types.ModuleType, str]] = set()
        self._unnamed: list[tuple[Place, bool]] = []  # and whether they are among the places
        self._own = {_package(inspect.unwrap(root)) for root in roots} - {_OURS, *_CLOSED}
        for root in roots:
            self._visit("an argument", root)
        while named := [each for each in self._unnamed if self._is_named(each[0].key)]:
            self._unnamed = [each for each in self._unnamed if not self._is_named(each[0].key)]
            for place, known in named:
                self._add(*place, known=known)
        self.things = list(self._seen.values())
        self.unread = [place for place, known in self._unnamed if known]

    def _add(self, name: str, owner: Any, key: Any, value: Any, known: bool = False) -> None:
        """Look at a place, and follow what it holds."""
        if not known:
            self.places.append(Place(name, owner, key, value))
        self._visit(f"'{key}' of {name}", value)

    def _is_named(self, key: Any) -> bool:
        names = self._names
        return key in names or str(key).lstrip("_") in names or not names.isdisjoint(_ANY_NAME)

    def _is_own(self, thing: Any) -> bool:
        """Whether a class, function or module is the user's own."""
        package = _package(thing)
        return package in self._own or not _is_library(package)

    def _visit(self, name: str, value: Any) -> None:
        if value is MISSING or isinstance(value, _ATOMS) or id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if isinstance(value, nn.Module):
            self._module(value)
        elif isinstance(value, np.ndarray):
            self.arrays.append((name, value))
        elif isinstance(value, functools.partial):
            for inner in (value.func, *value.args, *value.keywords.values()):
                self._visit(name, inner)
        elif inspect.ismethod(value):
            self._visit(name, value.__self__)
            self._visit(name, value.__func__)
        elif inspect.isfunction(value):
            self._function(value)
        elif inspect.isclass(value):
            self._class(value, made=True)
        elif not inspect.ismodule(value):
            if isinstance(value, _ITEMS):
                self._items(name, value)
            self._object(name, value)

    def _items(self, name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in list(value.items()):
                self._add("a dictionary", value, key, inner)
            return
        if not isinstance(value, tuple):
            self.items.append((f"an item of {name}", value))
        for inner in list(value):
            self._visit(f"an item of {name}", inner)

    def _module(self, module: nn.Module) -> None:
        """A module and those within it."""
        for path, part in module.named_modules():
            if part is not module and id(part) in self._seen:
                continue
            self._seen[id(part)] = part
            kind = type(part)
            name = kind.__name__ + f" ({path})" * bool(path)
            for owner in (part._parameters, part._buffers, part._modules):
                self.places += [Place(name, owner, *item) for item in owner.items()]
            for key, inner in list(part.__dict__.items()):
                if key in _CONTAINERS:
                    continue
                place = Place(name, part.__dict__, key, inner)
                self.places.append(place)
                if self._is_own(kind) and not isinstance(inner, _FOLLOWED):
                    self._unnamed.append((place, True))
                else:
                    self._visit(f"'{key}' of {name}", inner)
            self._class(kind)
            self._hiding(part)

    def _object(self, name: str, value: Any) -> None:
        """An object that is no module. Of the user's own, attributes count that the code names."""
        kind = type(value)
        if kind in _ITEMS:
            return
        every = isinstance(value, _FOLLOWED) or dataclasses.is_dataclass(value)
        every |= _package(kind) == _OURS
        functions = list(_functions_of(value))
        for inner in functions:
            self._visit(kind.__name__, inner)
        foreign = self._libraries and _package(kind) not in _CLOSED
        if not (every or foreign or self._is_own(kind)):
            self.closed += [] if functions else [(name, value)]
            return
        every |= self._has_foreign_code(kind)
        for owner in (getattr(value, "__dict__", {}), Slots(value)):
            for key, inner in list(owner.items()):
                place = Place(kind.__name__, owner, key, inner)
                if every:
                    self._add(*place)
                else:
                    self._unnamed.append((place, False))
        self._class(kind)
        self._hiding(value)

    def _has_foreign_code(self, kind: type) -> bool:
        """Whether code that is not read, that of a library's class, may name any attribute."""
        known = (object, nn.Module, PyroModule)
        return not all(base in known or self._is_own(base) for base in kind.__mro__)

    def _class(self, kind: type, made: bool = False) -> None:
        """What a class and its bases hold, if the user's own, and the code of methods in use.

        Args:
            kind: The class.
            made: Whether the programs may make objects of it, beside using one.
        """
        every = self._has_foreign_code(kind)
        for base in kind.__mro__:
            if not self._is_own(base) or (base, made) in self._classes:
                continue
            self._classes.add((base, made))
            owner = ClassAttributes(base)
            for key, value in list(vars(base).items()):
                place = Place(base.__name__, owner, key, value)
                special = key.startswith("__")
                if not special:
                    self._unnamed.append((place, False))
                if special and (key in _PRINTING or (key in _MAKING and not made)):
                    continue
                if special or every:
                    for inner in (value, *_functions_of(value)):
                        if inspect.isfunction(inner):
                            self._visit(base.__name__, inner)

    def _hiding(self, value: Any) -> None:
        """Attributes that an object lacks, and that would hide those of its class."""
        held = getattr(value, "__dict__", None)
        if held is None:
            return
        for base in type(value).__mro__:
            for key, inner in list(vars(base).items()) if self._is_own(base) else ():
                if not key.startswith("__") and key not in held and not hasattr(inner, "__get__"):
                    place = Place(type(value).__name__, held, key, MISSING)
                    self._unnamed.append((place, False))

    def _function(self, function: Callable[..., Any]) -> None:
        code, name = function.__code__, function.__qualname__
        for variable, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            owner = Cell(cell)
            self._add(name, owner, variable, owner.get(variable))
        for default in (function.__defaults__, function.__kwdefaults__):
            self._visit(f"a default of {name}", default)
        if not self._is_own(function):
            return
        scope, names = function.__globals__, set(_names(code))
        self._names |= names
        self._globals(name, scope, names)
        for key in sorted(names - scope.keys()):  # perhaps imported within the function
            for full in (key, f"{scope.get('__package__')}.{key}"):
                if isinstance(sys.modules.get(full), types.ModuleType):
                    self._namespace(sys.modules[full], names)

    def _globals(self, name: str, scope: dict[str, Any], names: set[str]) -> None:
        for key in sorted(names & scope.keys()):
            if inspect.ismodule(scope[key]):
                self._namespace(scope[key], names)
            else:
                self._add(name, scope, key, scope[key])

    def _namespace(self, module: types.ModuleType, names: set[str]) -> None:
        """The names of a module of the user's own."""
        if self._is_own(module):
            new = [name for name in names & vars(module).keys() if (module, name) not in self._read]
            self._read.update((module, name) for name in new)
            self._globals(module.__name__, vars(module), set(new))


def _package(thing: Any) -> str:
    """The top-level package of a class, function, module or object."""
    if not inspect.ismodule(thing):
        thing = getattr(thing, "__func__", thing)
    name = thing.__name__ if inspect.ismodule(thing) else getattr(thing, "__module__", None)
    return str(name or "builtins").partition(".")[0]


@functools.cache
def _is_library(package: str) -> bool:
    """Whether a package is installed or the standard library's, rather than the user's own."""
    if package in _CLOSED or package == _OURS:
        return True
    module = sys.modules.get(package)
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(
        part in str(place) for place in places for part in ("site-packages", "dist-packages")
    )


def _functions_of(attribute: Any) -> Iterator[Any]:
    """Functions behind an attribute of a class, such as those of a property."""
    if _package(type(attribute)) in ("builtins", "functools"):
        for name in ("__func__", "fget", "func", "__wrapped__"):
            if inspect.isfunction(inner := getattr(attribute, name, None)):
                yield inner


def _names(code: types.CodeType) -> Iterator[str]:
    """Names that a function refers to, also in the functions and comprehensions within it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)
