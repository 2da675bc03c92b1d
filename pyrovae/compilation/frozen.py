"""What a captured graph has frozen: Python values that its programs read and that someone may
change.
"""

import argparse
import dataclasses
import functools
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

__all__ = ["Frozen"]

# Attributes of every module that hold containers rather than settings.
_CONTAINERS = frozenset(nn.Module().__dict__) - {"training"}
_PLAIN = (bool, int, float, str, tuple, type(None))
_FOLLOWED = (
    nn.Module,
    Messenger,
    functools.partial,
    torch.distributions.Distribution,
    types.FunctionType,
    types.MethodType,
    types.SimpleNamespace,
    argparse.Namespace,
)


class Frozen:
    """The settings behind some programs, as they are now.

    Covers attributes, parameters and buffers of modules, attributes of handlers and other objects
    given, variables that functions close over, and globals they refer to; what dictionaries, lists,
    dataclasses and namespaces among these hold, too. Tensors are compared by identity, since a
    graph reads their values afresh; numbers and strings by value. Of other objects, what they hold
    is not compared.

    Args:
        roots: Programs, modules, handlers, estimators; a list of parameters stands for whether each
            is trained.
    """

    def __init__(self, *roots: Any):
        self._entries: list[tuple[str, dict[str, Any], str, Any]] = []
        self._cells: list[tuple[str, Any, Any]] = []
        self._lists: list[tuple[str, list[Any], list[Any]]] = []
        self._trained: list[tuple[Tensor, bool]] = []
        seen: set[int] = set()
        for root in roots:
            if isinstance(root, list):
                self._trained += [
                    (each, each.requires_grad) for each in root if isinstance(each, Tensor)
                ]
            self._walk(root, seen)

    def changed(self) -> str | None:
        """What is no longer as it was, or None."""
        for name, owner, key, old in self._entries:
            if not _same(owner.get(key), old):
                return f"'{key}' of {name}"
        for tensor, trained in self._trained:
            if tensor.requires_grad != trained:
                return "requires_grad of a parameter"
        for name, cell, old in self._cells:
            if not _same(_contents(cell), old):
                return name
        for name, items, old in self._lists:
            # A program may note what it did at the end of a list; what it reads is in front.
            if len(items) < len(old) or not all(map(_same, items, old)):
                return name
        return None

    def restore(self) -> None:
        """Put attributes back to what they were, such as tensors that tracing left behind."""
        for _, owner, key, old in self._entries:
            if owner.get(key) is not old:
                owner[key] = old
        for _, items, old in self._lists:
            items[: len(old)] = old

    def tensors(self) -> Iterator[Tensor]:
        """Parameters, buffers and other tensors among the settings."""
        return (old for _, _, _, old in self._entries if isinstance(old, Tensor))

    def _watch(self, name: str, owner: dict[str, Any], skip: frozenset[str] = frozenset()) -> None:
        self._entries.extend(
            (name, owner, key, value) for key, value in owner.items() if key not in skip
        )

    def _walk(self, value: Any, seen: set[int]) -> None:
        if id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, nn.Module):
            for path, module in value.named_modules():
                if module is not value and id(module) in seen:
                    continue
                seen.add(id(module))
                name = f"{type(module).__name__}" + f" ({path})" * bool(path)
                self._watch(name, module.__dict__, _CONTAINERS)
                self._watch(name, module._parameters)
                self._watch(name, module._buffers)
                for key, inner in module.__dict__.items():
                    if key not in _CONTAINERS:
                        self._inner(inner, seen)
        elif isinstance(value, functools.partial):
            for inner in (value.func, *value.args, *value.keywords.values()):
                self._inner(inner, seen)
        elif inspect.ismethod(value):
            self._walk(value.__self__, seen)
            self._walk(value.__func__, seen)
        elif inspect.isfunction(value):
            self._function(value, seen)
        elif (
            hasattr(value, "__dict__")
            and not inspect.ismodule(value)
            and not inspect.isclass(value)
        ):
            self._watch(type(value).__name__, value.__dict__)
            for inner in list(value.__dict__.values()):
                self._inner(inner, seen)

    def _function(self, function: Callable[..., Any], seen: set[int]) -> None:
        code = function.__code__
        for variable, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            contents = _contents(cell)
            self._cells.append((f"'{variable}' in {function.__qualname__}", cell, contents))
            self._inner(contents, seen)
        scope = function.__globals__
        names = [n for n in _names(code) if n in scope and not inspect.ismodule(scope[n])]
        self._entries.extend((function.__qualname__, scope, name, scope[name]) for name in names)
        for name in names:
            if not str(getattr(scope[name], "__module__", "")).startswith(("torch", "pyro.")):
                self._inner(scope[name], seen)

    def _inner(self, value: Any, seen: set[int]) -> None:
        """Follow what may hold settings of its own; other objects count by identity alone."""
        if isinstance(value, _FOLLOWED) or (
            dataclasses.is_dataclass(value) and not inspect.isclass(value)
        ):
            self._walk(value, seen)
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            if isinstance(value, dict):
                self._watch("a dictionary", value)
            elif isinstance(value, list):
                self._lists.append(("an item of a list", value, list(value)))
            for inner in list(value.values()) if isinstance(value, dict) else value:
                self._inner(inner, seen)


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _same(new: Any, old: Any) -> bool:
    return new is old or (isinstance(new, _PLAIN) and type(new) is type(old) and new == old)


def _names(code: types.CodeType) -> Iterator[str]:
    """Names that a function refers to, also in the functions and comprehensions within it."""
    yield from dict.fromkeys(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)
