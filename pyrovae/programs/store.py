"""Programs and Pyro"s parameter store."""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyro
from pyro import poutine
from pyro.poutine.runtime import effectful
from torch import Tensor, nn

from pyrovae.programs.modules import Program, modules_of

__all__ = ["is_stale", "register_parameters", "store_as_found", "stored_parameters"]


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


def register_parameters(module: nn.Module, prefix: str) -> None:
    """Show a module's parameters to Pyro's handlers, such as those of :class:`pyro.infer.SVI`.

    Unlike :func:`pyro.module`, an older entry of the same name in Pyro's global store is replaced
    by the module's parameter, so two programs never share one by accident.

    Example:
        >>> net = nn.Linear(2, 1)
        >>> trace = poutine.trace(lambda: register_parameters(net, "net")).get_trace()
        >>> trace.param_nodes
        ['net.weight', 'net.bias']
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
            _remove(full_name)
        if parameter.is_contiguous():
            _entries[module].add(full_name)
            pyro.param(full_name, parameter)
        else:  # the store would keep a contiguous copy, and an optimiser would train that
            _register_without_copy(full_name, parameter)


def _register_without_copy(name: str, parameter: Any) -> None:
    parameter.unconstrained = weakref.ref(parameter)
    effectful(lambda: parameter, type="param")(name=name)


_entries: weakref.WeakKeyDictionary[nn.Module, set[str]] = weakref.WeakKeyDictionary()
"""Names of modules' parameters in Pyro's store."""


def _forget(names: set[str]) -> None:
    for name in names:
        if name in pyro.get_param_store():
            _remove(name)


def _remove(name: str) -> None:
    """Take a name out of Pyro's store. A parameter of several names keeps the others; Pyro would
    fail at the second of them.
    """
    store = pyro.get_param_store()
    parameter = store._params[name]
    store._param_to_name[parameter] = name
    del store[name]
    for other, held in store._params.items():
        if held is parameter:
            store._param_to_name[parameter] = other


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
