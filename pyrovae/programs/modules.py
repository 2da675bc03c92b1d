"""The modules and the parameters that a Pyro program uses."""

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from pyro.poutine.messenger import unwrap
from torch import nn

__all__ = ["Program", "before_calls", "modules_of"]

Program = Callable[..., Any]


def modules_of(*programs: Program) -> list[nn.Module]:
    """Modules behind programs: a program itself, the owner of a bound method, and those that a
    function refers to.
    """
    found: dict[int, nn.Module] = {}
    for program in programs:
        for module in _modules_of(program):
            found.setdefault(id(module), module)
    return list(found.values())


def _modules_of(program: Any) -> list[nn.Module]:
    program = unwrap(program)
    if isinstance(program, nn.Module):
        return [program]
    if isinstance(program, partial):
        values = [program.func, *program.args, *program.keywords.values()]
        return [module for value in values for module in _modules_of(value)]
    owner = getattr(program, "__self__", None)
    if isinstance(owner, nn.Module):
        return [owner]
    if owner is not None and not inspect.ismodule(owner):
        return [
            value
            for value in getattr(owner, "__dict__", {}).values()
            if isinstance(value, nn.Module)
        ]
    if inspect.isfunction(program):
        seen = inspect.getclosurevars(program)
        return [v for v in {**seen.globals, **seen.nonlocals}.values() if isinstance(v, nn.Module)]
    return []


@contextmanager
def before_calls(look: Callable[[nn.Module], Any]) -> Iterator[None]:
    """Show every module that this thread calls to a function, just before the module runs.

    A program may hold a module where :func:`modules_of` does not look: in a dictionary, in a plain
    object, behind a helper function.
    """
    thread = threading.get_ident()  # torch's hook sees the modules of all threads

    def hook(module: nn.Module, args: Any) -> None:
        if threading.get_ident() == thread:
            look(module)

    handle = nn.modules.module.register_module_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()
