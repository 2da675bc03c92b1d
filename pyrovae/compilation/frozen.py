"""What a captured graph has frozen: Python values that its programs read and that someone may
change.
"""

import io
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.compilation.places import MISSING
from pyrovae.compilation.reach import Reach

__all__ = ["MOST_BYTES", "Frozen"]

MOST_BYTES = 2**20
"""Bytes of NumPy arrays that are looked at before a step, in a tenth of a millisecond."""

_PLAIN = (bool, int, float, complex, str, bytes, type(None), np.generic, torch.device)

_MOVING = Iterator, random.Random, np.random.Generator, np.random.RandomState
"""What gives another value at each use, and keeps its state to itself."""


class Frozen:
    """The settings behind some programs, as they are now.

    Covers what :class:`~pyrovae.compilation.reach.Reach` finds. Tensors are compared by identity,
    since a graph reads their values afresh; numbers, strings and NumPy arrays by value, and other
    objects by what they hold. A read-only array counts as fixed.

    Args:
        roots: Programs, modules, handlers, estimators; a list of parameters stands for whether each
            is trained.
        deep: Whether to follow arrays and objects of installed libraries. While a program is
            traced these may fill caches of their own.

    Attributes:
        unfit: Why the settings cannot be watched, or None.
    """

    def __init__(self, *roots: Any, deep: bool = True):
        reach = Reach(*roots, libraries=deep)
        self._places = reach.places
        self._items = [(name, items, list(items)) for name, items in reach.items]
        self._trained = [
            (each, each.requires_grad)
            for root in roots
            if isinstance(root, list)
            for each in root
            if isinstance(each, Tensor)
        ]
        self._arrays: list[tuple[str, np.ndarray, Any]] = []
        self.unfit: str | None = None
        for name, array in reach.arrays if deep else ():
            self._watch(name, array)
        for name, thing in reach.closed:
            if isinstance(thing, _MOVING) and not isinstance(thing, io.IOBase):
                self.unfit = (
                    f"the programs can read {name}, a {type(thing).__name__}, which gives another "
                    "value at each use. Draw by torch's own generator, and count in a tensor"
                )

    def _watch(self, name: str, array: np.ndarray) -> None:
        if not array.flags.writeable:
            return
        if sum(known.nbytes for _, known, _ in self._arrays) + array.nbytes > MOST_BYTES:
            self.unfit = (
                f"the programs can read {name}, a NumPy array of {array.nbytes / 2**20:.1f} MiB, "
                "whose values a graph would freeze. Hold it in a tensor, or make it read-only by "
                "array.flags.writeable = False"
            )
        else:
            self._arrays.append((name, array, _content(array)))

    def changed(self) -> str | None:
        """What is no longer as it was, or None."""
        for name, owner, key, old in self._places:
            new = owner.get(key, MISSING)
            if new is not old and not _same(new, old):
                return f"'{key}' of {name}"
        for tensor, trained in self._trained:
            if tensor.requires_grad != trained:
                return "requires_grad of a parameter"
        for name, items, old in self._items:
            # A program may note what it did at the end of a list; what it reads is in front.
            longer = isinstance(items, list) and len(items) > len(old)
            if not (longer or len(items) == len(old)) or not all(map(_same, items, old)):
                return name
        for name, array, old in self._arrays:
            if _content(array) != old:
                return name
        return None

    def restore(self) -> None:
        """Put attributes back to what they were, such as tensors that tracing left behind."""
        for _, owner, key, old in self._places:
            if owner.get(key, MISSING) is old:
                continue
            if old is MISSING:
                del owner[key]
            else:
                owner[key] = old
        for _, items, old in self._items:
            if isinstance(items, list):
                items[: len(old)] = old


def _content(array: np.ndarray) -> tuple[Any, ...]:
    return array.shape, array.dtype, array.tobytes()


def _same(new: Any, old: Any) -> bool:
    if new is old or type(new) is not type(old):
        return new is old
    if isinstance(new, tuple):  # may hold tensors, whose == is no truth
        return len(new) == len(old) and all(map(_same, new, old))
    return isinstance(new, _PLAIN) and bool(new == old)
