"""The modules and the parameters that a Pyro program uses."""

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import MethodType
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import nn

__all__ = ["Program", "before_calls", "floating_parameter", "modules_of", "unwrapped"]

Program = Callable[..., Any]


def modules_of(*programs: Program) -> list[nn.Module]:
    """Modules behind programs: a program itself, the owner of a bound method, and those that a
    function refers to.

    Example:
        >>> import pyrovae as pv
        >>> vae = pv.VAE(data_shape=3, latent_dim=2)
        >>> modules_of(vae.model, vae.guide) == [vae]
        True
    """
    found: dict[int, nn.Module] = {}
    for program in programs:
        for module in _modules_of(program):
            found.setdefault(id(module), module)
    return list(found.values())


def floating_parameter(*programs: Program) -> nn.Parameter | None:
    """The first floating-point parameter of their modules, which tells precision and device; None
    where there is none.
    """
    every = (p for module in modules_of(*programs) for p in module.parameters())
    return next((p for p in every if p.is_floating_point()), None)


def unwrapped(program: Program) -> Program:
    """The program within Pyro's handlers.

    A handler makes ``partial(function, handler, program)`` of a program, with the owner after it if
    the program is a decorated method. Pyro's own ``unwrap`` takes every partial function for such a
    one.
    """
    held = program.args if isinstance(program, partial) else ()
    if len(held) < 2 or not isinstance(held[0], Messenger):
        return program
    inner, bound, options = unwrapped(held[1]), held[2:], program.keywords  # type: ignore[union-attr]
    if bound:
        inner, bound = MethodType(inner, bound[0]), bound[1:]
    return partial(inner, *bound, **options) if bound or options else inner


def _modules_of(program: Any) -> list[nn.Module]:
    program = unwrapped(program)
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
