"""Arguments and results of a function, taken apart into their leaves and put together again.

``torch.utils._pytree`` does this for any nest. It costs tens of microseconds at each call, as much
as the whole of a small graph, so what is common goes past it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch.utils import _pytree as pytree

__all__ = ["filled", "leaves_of", "rebuilder", "taken_apart"]


def taken_apart(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[Any], Any]:
    """The leaves of a call's arguments, and their hashable structure, for :func:`filled`."""
    if kwargs or any(isinstance(each, tuple | list | dict) for each in args):
        leaves, structure = pytree.tree_flatten((tuple(args), dict(kwargs)))
        return leaves, _Structure(structure)
    return args, len(args)


def filled(structure: Any, leaves: Sequence[Any]) -> tuple[Sequence[Any], dict[str, Any]]:
    """The arguments of a call, of other leaves."""
    if isinstance(structure, int):
        return leaves, {}
    return pytree.tree_unflatten(leaves, structure.tree)


class _Structure(NamedTuple):
    """That of a nest. torch 2.6 cannot hash its own where there is a dictionary."""

    tree: Any

    def __hash__(self) -> int:
        return hash(self.tree.num_leaves)


def leaves_of(nest: Any) -> Iterator[Any]:
    """The leaves of tuples, named ones included, and lists in each other."""
    if isinstance(nest, tuple | list):
        for each in nest:
            yield from leaves_of(each)
    else:
        yield nest


def rebuilder(nest: Any) -> Callable[[Iterator[Any]], Any]:
    """A function from an iterator over leaves to such tuples and lists as in ``nest``."""
    if not isinstance(nest, tuple | list):
        return next
    parts = [rebuilder(each) for each in nest]
    make = getattr(type(nest), "_make", type(nest))
    return lambda leaves: make([part(leaves) for part in parts])
