"""What the numbers of an estimate depend on, as one name."""

import functools
import hashlib
import inspect
import io
import json
import pickle
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor

import pyrovae
from pyrovae.compilation.places import MISSING, Place
from pyrovae.compilation.reach import Reach
from pyrovae.data.hashing import content_hash
from pyrovae.evidence.inspection import Inspection
from pyrovae.evidence.streams import VERSION, fingerprint
from pyrovae.programs import Program, modules_of

__all__ = ["identity"]

_ATOMS = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)


def identity(inspection: Inspection, method: Any) -> str:
    """A hash of all that an estimate depends on, 16 hexadecimal digits: data, method, seed,
    versions; all that the programs can read, with its code; and Pyro's parameter store.

    Raises:
        ValueError: If it cannot be told what something that the programs can read holds.
    """
    # What is finer than the fingerprint tells.
    fine = [arg for arg in inspection.args if arg.dtype == torch.float64]
    store = dict(pyro.get_param_store().named_parameters())
    known = {
        "seed": inspection.seed,
        "data": [inspection.fingerprint, *(str(arg.dtype) for arg in inspection.args)],
        "fine": fingerprint(fine, torch.float64) if fine else "",
        "draws": VERSION,
        "memory": inspection.memory_budget,
        "nesting": inspection.max_plate_nesting,
        "device": inspection.device.type,
        "default": str(torch.get_default_dtype()),
        "versions": [pyrovae.__version__, torch.__version__, pyro.__version__],
        # Those of modules are among what the programs can read.
        "store": [
            (name, _of_tensor(store[name]))
            for name in sorted(store)
            if not isinstance(store[name], torch.nn.Parameter)
        ],
    }
    digest = hashlib.blake2b(json.dumps(known).encode(), digest_size=8)
    programs = inspection.model, inspection.guide
    for line in _Content(Reach(*programs, method, *_hooks(*programs))):
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _hooks(*programs: Program) -> list[Any]:
    """What modules call beside ``forward``."""
    parts = [part for module in modules_of(*programs) for part in module.modules()]
    held = [hooks for part in parts for hooks in (part._forward_pre_hooks, part._forward_hooks)]
    return [hook for hooks in held for hook in hooks.values()]


class _Content:
    """Lines that tell all that programs can read. Objects have numbers, and stand for these."""

    def __init__(self, reach: Reach):
        self.reach = reach
        self.numbers = {id(thing): number for number, thing in enumerate(reach.things)}
        self.closed = {id(thing): name for name, thing in reach.closed}
        self.lists = {id(items) for _, items in reach.items}

    def __iter__(self) -> Iterator[str]:
        unread = {id(place) for place in self.reach.unread}
        for place in self.reach.places:
            if _is_idle(place):
                continue
            value = _name(type(place.value)) if id(place) in unread else self._of(place.value)
            yield f"{place.name} {self._of(place.key)} {value}"
        for number, thing in enumerate(self.reach.things):
            yield f"#{number} {_name(type(thing))} {self._about(thing)}"

    def _of(self, value: Any) -> str:
        """A value where it stands."""
        if value is MISSING or isinstance(value, _ATOMS):
            return f"{type(value).__name__} {value!r}"
        if isinstance(value, Tensor):
            return _of_tensor(value)
        number = self.numbers.get(id(value))
        return self._pickled(value) if number is None else f"#{number}"

    def _about(self, thing: Any) -> Any:
        """What is said of an object once, beside the places that it holds."""
        if isinstance(thing, types.FunctionType):
            return _name(thing), list(_of_code(thing.__code__))
        if isinstance(thing, type | types.ModuleType):
            return _name(thing)
        if isinstance(thing, types.MethodType):
            return self._of(thing.__self__), self._of(thing.__func__)
        if isinstance(thing, functools.partial):
            options = [(key, self._of(value)) for key, value in thing.keywords.items()]
            return self._of(thing.func), [self._of(value) for value in thing.args], options
        if isinstance(thing, np.ndarray) and thing.dtype != object:
            return str(thing.dtype), thing.shape, hashlib.blake2b(thing.tobytes()).hexdigest()
        if isinstance(thing, set | frozenset):
            return sorted(map(self._of, thing))
        if isinstance(thing, tuple) or id(thing) in self.lists:
            return [self._of(value) for value in thing]
        if id(thing) in self.closed or isinstance(thing, np.ndarray):
            return self._pickled(thing)
        return ""

    def _pickled(self, value: Any) -> str:
        """An object that nobody looks into, by what would be saved of it."""
        if hasattr(value, "__objclass__"):  # an attribute of a class, such as a slot
            return f"{_name(value.__objclass__)}.{value.__name__}"
        stream = io.BytesIO()
        try:
            _Pickler(stream, protocol=5).dump(value)
        except Exception as error:
            where = self.closed.get(id(value), "an object")
            raise ValueError(
                f"The programs can read {where}, a {_name(type(value))}, and what it holds cannot "
                "be told. So parts of another model could be taken for those of this one. Leave "
                "parts out, or hold it where the programs do not refer to it."
            ) from error
        return hashlib.blake2b(stream.getvalue()).hexdigest()


class _Pickler(pickle.Pickler):
    """Saves tensors by their content alone; torch would save addresses as well."""

    def reducer_override(self, value: Any) -> Any:
        return (str, (_of_tensor(value),)) if isinstance(value, Tensor) else NotImplemented


def _of_tensor(tensor: Tensor) -> str:
    return content_hash([tensor], 16).hex()


def _of_code(code: types.CodeType) -> Iterator[Any]:
    """What a function does, wherever it stands in a file."""
    yield code.co_code.hex(), code.co_names, code.co_varnames, code.co_freevars
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield list(_of_code(constant))
        else:
            yield sorted(map(repr, constant)) if isinstance(constant, frozenset) else repr(constant)


def _is_idle(place: Place) -> bool:
    """Whether this changes no number: the mode of a module, since programs run in eval mode here,
    and the number that makes its name in Pyro's store (:class:`pyrovae.models.registered`).
    """
    known = place.key in ("training", "_serial")
    return known and isinstance(place.owner, dict) and "_buffers" in place.owner


def _name(thing: Any) -> str:
    if inspect.ismodule(thing):
        return thing.__name__
    return f"{thing.__module__}.{thing.__qualname__}"
