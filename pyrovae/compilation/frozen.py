"""What a captured graph has frozen: Python values that its programs read and that someone may
change.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

__all__ = ["Frozen"]

# Attributes of every module that hold containers rather than settings.
_CONTAINERS = frozenset(nn.Module().__dict__) - {"training"}
_PLAIN = (bool, int, float, str, tuple, type(None))


class Frozen:
    """The settings behind some programs, as they are now.

    Covers attributes, parameters and buffers of modules, attributes of handlers and other objects
    given, variables that functions close over, and globals they refer to. Tensors are compared by
    identity, since a graph reads their values afresh; numbers and strings by value.

    Args:
        roots: Programs, modules, handlers, estimators; a list of parameters stands for whether each
            is trained.
    """

    def __init__(self, *roots: Any):
        self._entries: list[tuple[str, dict[str, Any], str, Any]] = []
        self._cells: list[tuple[str, Any, Any]] = []
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
            new = owner.get(key)
            if new is not old and not (
                isinstance(new, _PLAIN) and type(new) is type(old) and new == old
            ):
                return f"'{key}' of {name}"
        for tensor, trained in self._trained:
            if tensor.requires_grad != trained:
                return "requires_grad of a parameter"
        for name, cell, old in self._cells:
            new = _contents(cell)
            if new is not old and not (
                isinstance(new, _PLAIN) and type(new) is type(old) and new == old
            ):
                return name
        return None

    def restore(self) -> None:
        """Put attributes back to what they were, such as tensors that tracing left behind."""
        for _, owner, key, old in self._entries:
            if owner.get(key) is not old:
                owner[key] = old

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
                for inner in module.__dict__.values():
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
        names = [n for n in code.co_names if n in scope and not inspect.ismodule(scope[n])]
        self._entries.extend((function.__qualname__, scope, name, scope[name]) for name in names)
        for name in names:
            if not str(getattr(scope[name], "__module__", "")).startswith(("torch", "pyro.")):
                self._inner(scope[name], seen)

    def _inner(self, value: Any, seen: set[int]) -> None:
        """Follow what may hold settings of its own; other objects count by identity alone."""
        kinds = (nn.Module, Messenger, functools.partial, torch.distributions.Distribution)
        if isinstance(value, kinds) or inspect.isfunction(value) or inspect.ismethod(value):
            self._walk(value, seen)
        elif isinstance(value, list | tuple):
            for inner in value:
                self._inner(inner, seen)


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None
