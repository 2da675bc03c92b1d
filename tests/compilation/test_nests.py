"""Nests are put together as they were, named tuples included."""

from typing import NamedTuple

import pytest

from pyrovae.compilation.nests import filled, leaves_of, rebuilder, taken_apart


class Pair(NamedTuple):
    first: int
    rest: list[int]


@pytest.mark.parametrize("nest", [1, (), (1, [2, (3,)], None), Pair(1, [2, 3]), [Pair(1, []), 2]])
def test_a_nest_is_rebuilt(nest):
    rebuilt = rebuilder(nest)(leaf for leaf in list(leaves_of(nest)))
    assert rebuilt == nest
    assert type(rebuilt) is type(nest)


@pytest.mark.parametrize("args", [(1, None, "a"), (1, (2, [3])), ({"a": 1}, 2), ()])
@pytest.mark.parametrize("kwargs", [{}, {"b": 4}])
def test_arguments_are_filled_in(args, kwargs):
    leaves, structure = taken_apart(args, kwargs)
    assert not any(isinstance(leaf, tuple | list | dict) for leaf in leaves)
    found, named = filled(structure, leaves)
    assert (tuple(found), named) == (args, kwargs)
    assert {structure: 1}[taken_apart(args, kwargs)[1]] == 1
