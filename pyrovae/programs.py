"""The modules, the parameters and the mode of a Pyro program."""

import inspect
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import unwrap
from pyro.poutine.runtime import effectful
from torch import Tensor, nn

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


class Met(NamedTuple):
    """What one run of guide and model meets."""

    parameters: list[Tensor]
    """Every unconstrained parameter, each once, guide first."""
    modules: list[nn.Module]
    """The modules, without those that are parts of another one."""


def meet(model: Program, guide: Program, *args: Any, **kwargs: Any) -> Met:
    """Run the pair once, and tell what it meets.

    The run is without gradients or effect on the random state and on buffers. Modules that are
    called on the way count, however the programs hold them.
    """
    called: dict[int, nn.Module] = {}
    with (
        before_calls(lambda module: called.setdefault(id(module), module)),
        undisturbed(model, guide),
        poutine.trace(param_only=True) as capture,
        poutine.block(hide_types=["sample"]),
    ):
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        poutine.replay(model, trace=guide_trace)(*args, **kwargs)
    sites: list[Any] = list(capture.trace.nodes.values())
    found = {id(p): p for p in (site["value"].unconstrained() for site in sites)}
    modules = {id(m): m for m in (*modules_of(guide, model), *called.values())}
    for module in modules.values():
        for parameter in module.parameters():
            if parameter.requires_grad:
                found.setdefault(id(parameter), parameter)
    parts = {id(p) for m in modules.values() for p in m.modules() if p is not m}
    return Met(list(found.values()), [m for key, m in modules.items() if key not in parts])


def parameters_of(model: Program, guide: Program, *args: Any, **kwargs: Any) -> list[Tensor]:
    """The parameters that :func:`meet` finds."""
    return meet(model, guide, *args, **kwargs).parameters


def stored_parameters(parameters: Sequence[Tensor]) -> dict[str, Tensor]:
    """Those that live in Pyro's store alone, by name; those of modules live in their module."""
    wanted = {id(p) for p in parameters if not isinstance(p, nn.Parameter)}
    store = pyro.get_param_store().named_parameters()
    return {name: p for name, p in store if id(p) in wanted}


def is_stale(stored: dict[str, Tensor]) -> bool:
    """Whether Pyro's store holds something else than what :func:`stored_parameters` gave."""
    if not stored:
        return False
    held = dict(pyro.get_param_store().named_parameters())
    return any(held.get(name) is not parameter for name, parameter in stored.items())


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


def register_parameters(module: nn.Module, prefix: str) -> None:
    """Show a module's parameters to Pyro's handlers, such as those of :class:`pyro.infer.SVI`.

    Unlike :func:`pyro.module`, an older entry of the same name in Pyro's global store is replaced
    by the module's parameter, so two programs never share one by accident.
    """
    if not poutine.runtime.am_i_wrapped():
        return
    store = pyro.get_param_store()
    if module not in _entries:
        _entries[module] = names = set()
        # The store would hold the parameters of a model that nobody else has any more.
        weakref.finalize(module, _forget, names).atexit = False
    for name, parameter in module.named_parameters():
        # A functional call or a capture puts plain tensors in place of parameters; those are not to
        # be optimised.
        if not parameter.requires_grad or not isinstance(parameter, nn.Parameter):
            continue
        full_name = f"{prefix}.{name}"
        if full_name in store and store.get_param(full_name) is not parameter:
            del store[full_name]
        if parameter.is_contiguous():
            _entries[module].add(full_name)
            pyro.param(full_name, parameter)
        else:  # the store would keep a contiguous copy, and an optimiser would train that
            _register_without_copy(full_name, parameter)


_entries: weakref.WeakKeyDictionary[nn.Module, set[str]] = weakref.WeakKeyDictionary()
"""Names of modules' parameters in Pyro's store."""


def _forget(names: set[str]) -> None:
    store = pyro.get_param_store()
    for name in names:
        if name in store:
            del store[name]


@contextmanager
def store_as_found(*programs: Program) -> Iterator[None]:
    """Take what programs show of their modules out of Pyro's parameter store afterwards.

    The modules keep their parameters. Those that the store alone holds, made by ``pyro.param`` with
    a value, stay.
    """
    store = pyro.get_param_store()
    before = set(store.keys())
    try:
        yield
    finally:
        owned = {id(p) for module in modules_of(*programs) for p in module.parameters()}
        entries = {name for names in _entries.values() for name in names}
        found = dict(store.named_parameters())
        new = found.keys() - before
        _forget({name for name in new if name in entries or id(found[name]) in owned})


class _Turn:
    """Whose turn it is to run programs in this process."""

    def __init__(self) -> None:
        self.process, self.used, self.lock = os.getpid(), False, threading.RLock()


_turn = _Turn()


@contextmanager
def alone() -> Iterator[None]:
    """Let one thread at a time run programs: Pyro's handlers and store belong to the process.

    In a process that was forked after its parent had run programs, torch computes with one thread,
    because its other threads did not survive the fork.
    """
    global _turn
    if _turn.process != os.getpid():
        forked, _turn = _turn.used, _Turn()
        if forked and torch.get_num_threads() > 1:
            warnings.warn(
                "This process was forked after its parent had trained or evaluated, so torch "
                "computes with one thread here. Start processes by multiprocessing's 'spawn' to "
                "use more.",
                stacklevel=3,
            )
            torch.set_num_threads(1)
    turn = _turn
    turn.used = True
    if not turn.lock.acquire(blocking=False):
        warnings.warn(
            "Another thread of this process trains or evaluates. Pyro's handlers belong to the "
            "process, so this call waits for it. Use processes to train at the same time.",
            stacklevel=3,
        )
        turn.lock.acquire()
    try:
        yield
    finally:
        turn.lock.release()


def _register_without_copy(name: str, parameter: Any) -> None:
    parameter.unconstrained = weakref.ref(parameter)
    effectful(lambda: parameter, type="param")(name=name)


@contextmanager
def undisturbed(*programs: Program) -> Iterator[None]:
    """Run programs without gradients, and put the random state and the modules' buffers back."""
    before: dict[int, tuple[Tensor, Tensor]] = {}

    def remember(module: nn.Module) -> None:
        for buffer in module.buffers():
            if id(buffer) not in before:
                before[id(buffer)] = buffer, buffer.clone()

    for module in modules_of(*programs):
        remember(module)
    with torch.no_grad(), torch.random.fork_rng(), before_calls(remember):
        try:
            yield
        finally:
            for buffer, value in before.values():
                buffer.copy_(value)


@contextmanager
def evaluation_mode(*programs: Program) -> Iterator[None]:
    """Put the programs' modules in eval mode; each submodule is back in its own mode afterwards.

    Every module that this thread calls inside the context is put in eval mode as well, however the
    programs hold it.
    """
    modes: dict[int, tuple[nn.Module, bool]] = {}

    def remember(module: nn.Module) -> None:
        for part in module.modules():
            modes.setdefault(id(part), (part, part.training))

    def settle(module: nn.Module) -> None:
        if module.training:
            remember(module)
            module.eval()

    try:
        with before_calls(settle):
            for module in modules_of(*programs):
                remember(module)
                module.eval()
            yield
    finally:
        for module, training in modes.values():
            module.training = training


def check_data(programs: Sequence[Program], *data: Tensor) -> None:
    """Let each module behind the programs that has a ``check`` method look at the data, and raise.

    A module that takes fewer arguments than the programs, as one behind ``observe_part``, gets the
    first of them.
    """
    for module in modules_of(*programs):
        check = getattr(module, "check", None)
        if callable(check):
            check(*data[: num_positional(check)])


def num_positional(function: Callable[..., Any]) -> int | None:
    """How many positional arguments a function takes; None for any number."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
