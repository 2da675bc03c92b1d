"""Declared objects print as declared, whatever kind of class they are of."""

import copy
import inspect
import pickle
from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyro
import pytest
import torch
from torch import nn

from pyrovae import likelihoods, posteriors, priors, schedules
from pyrovae.declare import Declared


class Sample(Declared, nn.Module):
    def __init__(self, size: int = 3, *, rate: float = 0.5, start=None):
        super().__init__()
        self.net = nn.Linear(size, size)


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (Sample(), "Sample()"),
        (Sample(3), "Sample()"),
        (Sample(4), "Sample(size=4)"),
        (Sample(rate=2.0, size=2), "Sample(size=2, rate=2.0)"),
        (Sample(start=torch.zeros(2, 3)), "Sample(start=<tensor (2, 3)>)"),
        (Sample(start=torch.tensor(1.5)), "Sample(start=1.5)"),
        (priors.StandardNormal(), "StandardNormal()"),
        (likelihoods.Gaussian("learned"), "Gaussian(scale='learned')"),
        (posteriors.DiagonalNormal(min_scale=1e-6), "DiagonalNormal()"),
    ],
)
def test_a_part_prints_as_it_was_declared(part, text):
    assert repr(part) == text
    assert repr(copy.deepcopy(part)) == text
    assert repr(pickle.loads(pickle.dumps(part))) == text


def test_a_wrong_argument_is_pythons_own_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'sise'"):
        Sample(sise=3)
    with pytest.raises(TypeError, match="arguments are size, rate, start"):
        Sample(sise=3)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'first'"):
        Many()
    with pytest.raises(TypeError, match=r"too many positional arguments.*arguments are none"):
        Plain(3)


class Plain(Declared):
    pass


class Many(Declared):
    def __init__(self, first: int | Sequence[int], *more: int, word: str = "a"):
        self.values = (first, *more)


class Extra(Declared, ABC):
    def __init__(self, inner, sizes=(1, 2), **rest):
        self.inner = inner


class Bound(Declared, pyro.infer.ELBO):
    """As the estimators: a base class with its own constructor, signature and call."""

    def __init__(self, num_particles: int = 1, *, power: float = 0.5):
        super().__init__(num_particles=num_particles)

    def _get_trace(self, model, guide, args, kwargs):
        raise NotImplementedError


@dataclass(frozen=True, repr=False)
class Frozen(Declared):
    rate: float
    size: int = 3


@pytest.mark.parametrize(
    ("thing", "text"),
    [
        (Plain(), "Plain()"),
        (Many(1, 2), "Many(1, 2)"),
        (Many([1, 2]), "Many(1, 2)"),
        (Many(first=(1, 2), word="b"), "Many(1, 2, word='b')"),
        (Many(3, word="a"), "Many(3)"),
        (Extra(Plain(), [1, 2]), "Extra(inner=Plain())"),
        (Extra(inner=Many(1), sizes=[2], depth=4), "Extra(inner=Many(1), sizes=[2], depth=4)"),
        (Extra(np.ones(3)), "Extra(inner=<ndarray (3,)>)"),
        (Extra(np.float64(0.5)), "Extra(inner=0.5)"),
        (Extra(nn.Sequential(nn.ReLU())), "Extra(inner=Sequential(...))"),
        (Bound(5), "Bound(num_particles=5)"),
        (Frozen(0.5), "Frozen(rate=0.5)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_kind_of_class_prints_as_declared(thing, text):
    for same in (
        thing,
        copy.copy(thing),
        copy.deepcopy(thing),
        pickle.loads(pickle.dumps(thing)),
        thing.redeclare(),
    ):
        assert repr(same) == text
        assert type(same) is type(thing)
        assert vars(same).keys() == vars(thing).keys()


def test_redeclared_with_changes():
    assert repr(Many(1, 2).redeclare(word="b")) == "Many(1, 2, word='b')"
    assert repr(Bound(5).redeclare(num_particles=7)) == "Bound(num_particles=7)"
    assert Bound(5).redeclare(num_particles=7).num_particles == 7
    with pytest.raises(ValueError, match="num_particles"):
        Checked(3).redeclare(num_particles=0)


class Checked(Declared):
    def __init__(self, num_particles: int):
        if num_particles < 1:
            raise ValueError("num_particles must be positive")


def test_what_was_given_cannot_be_changed_by_what_is_returned():
    thing = Many(1, 2)
    thing.declaration["word"] = "b"
    assert thing.declaration == {"first": 1, "more": (2,)}


def test_long_declarations_take_a_line_for_each_argument():
    words = {f"argument_{i}": "w" * 20 for i in range(3)}
    outer = Extra(Extra(1, **words), **words)
    lines = repr(outer).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[:3] == ["Extra(", "    inner=Extra(", "        inner=1,"]
    assert lines[-2:] == ["    argument_2='wwwwwwwwwwwwwwwwwwww',", ")"]
    assert repr(eval(repr(outer), {"Extra": Extra})) == repr(outer)


def test_signatures_are_those_of_the_constructor_and_of_the_call():
    """What editors show for the class, and what `inspect` says of an instance
    that can be called.
    """
    assert str(inspect.signature(Sample)) == "(size: int = 3, *, rate: float = 0.5, start=None)"
    assert str(inspect.signature(Frozen)) == "(rate: float, size: int = 3)"
    assert not inspect.signature(priors.StandardNormal).parameters
    assert [*inspect.signature(Bound()).parameters] == ["model", "guide"]


def test_only_arguments_can_be_changed():
    with pytest.raises(TypeError, match=r"Linear has no argument stopp. Its arguments are start, "):
        schedules.Linear(steps=3).redeclare(stopp=2.0)
