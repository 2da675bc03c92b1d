"""Tracing a function to a graph, and what it refuses."""

import itertools
import random

import numpy as np
import pytest
import torch
from torch import nn

from pyrovae.compilation import compile as compiled
from pyrovae.compilation.capture import Uncapturable, capture
from pyrovae.compilation.frozen import Frozen
from pyrovae.handlers import KLScale

X = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
ONE = torch.ones(1, dtype=torch.float64)


def test_values_gradients_and_draws_are_those_of_the_function():
    weight = nn.Parameter(torch.eye(3, dtype=torch.float64))

    def function(x):
        noise = torch.randn_like(x)
        loss = ((x @ weight + noise).tanh() ** 2).sum()
        return loss.detach(), *torch.autograd.grad(loss, [weight])

    graph = capture(function, (X,))
    for seed in (0, 1):
        torch.manual_seed(seed)
        expected = function(X + seed)
        torch.manual_seed(seed)
        assert all(torch.equal(a, b) for a, b in zip(graph(X + seed), expected, strict=True))
        with torch.no_grad():
            weight.mul_(0.5)  # the graph reads the parameter where it is


def test_tracing_changes_nothing_and_replaying_changes_what_the_function_changes():
    vector, count, total = (
        torch.zeros(3, dtype=torch.float64),
        torch.zeros((), dtype=torch.long),
        ONE.clone(),
    )

    def function(x):
        vector.mul_(0.5).add_(x.mean(0))
        count.add_(1)
        total.add_(torch.rand(1, dtype=x.dtype))
        return (x.sum(),)

    state = torch.get_rng_state()
    graph = capture(function, (X,))
    assert torch.equal(torch.get_rng_state(), state)
    assert not vector.any()
    assert count == 0
    assert torch.equal(total, ONE)
    for _ in range(3):
        graph(X + 1)
    assert count == 3
    torch.testing.assert_close(vector, (X + 1).mean(0) * 1.75)
    assert total > 1


class Holder(nn.Module):
    """Keeps what it computed, as a graph could not."""

    def __init__(self):
        super().__init__()
        self.last, self.calls = None, 0

    def keep(self, x):
        self.last = x.sum()
        return (x,)

    def tally(self, x):
        self.calls += 1
        return (x,)


REFUSED = {
    "branch on an input": (lambda x: (x if x.sum() > 0 else -x,), "reads the value"),
    "number of a closed-over tensor": (lambda x: (x * float(ONE),), "reads the value"),
    "number derived from one": (
        lambda x: (x * (ONE * 2 + torch.tensor(1.0)).item(),),
        "reads the value",
    ),
    "numpy": (lambda x: (x * float((ONE * 2).numpy()[0]),), "numpy"),
    "Python's generator": (lambda x: (x * random.random(),), "Python's or numpy's generator"),
    "numpy's generator": (lambda x: (x * np.random.rand(),), "Python's or numpy's generator"),  # noqa: NPY002
}


@pytest.mark.parametrize(("function", "message"), REFUSED.values(), ids=REFUSED)
def test_what_a_graph_would_freeze_is_refused(function, message):
    with pytest.raises(Uncapturable, match=message):
        capture(function, (X,))


MOVING = {
    "numpy": (np.random.default_rng(0), lambda source: source.random()),
    "python": (random.Random(0), lambda source: source.random()),
    "count": (itertools.count(), next),
    "generator": ((1.0 + i for i in range(9)), next),
}


@pytest.mark.parametrize(("source", "read"), MOVING.values(), ids=MOVING)
def test_what_gives_another_value_at_each_use_is_refused(source, read):
    def scale(x):
        return (x * read(source),)

    with pytest.raises(Uncapturable, match="which gives another value at each use"):
        capture(scale, (X,), scale)
    found = compiled(scale, settings=(scale,), quiet=True)
    assert not torch.equal(found(X)[0], found(X)[0])


def test_a_generator_of_torch_that_the_function_made_is_refused():
    generator = torch.Generator()
    with pytest.raises(Uncapturable, match="a Generator of their own"):
        capture(lambda x: (x * torch.rand(x.shape, generator=generator),), (X,))


def test_a_number_read_from_an_input_stays_live_or_is_refused():
    try:
        graph = capture(lambda x: (x * x.sum().item(),), (X,))
    except Uncapturable:
        return  # older versions of torch
    assert torch.equal(graph(X + 1)[0], (X + 1) * (X + 1).sum())


def test_a_fresh_constant_may_be_read():
    graph = capture(lambda x: (x * torch.tensor(2.0).item(),), (X,))
    assert torch.equal(graph(X)[0], 2 * X)


@pytest.mark.parametrize("method", ["keep", "tally"])
def test_results_kept_in_attributes_are_refused_and_removed(method):
    holder = Holder()
    with pytest.raises(Uncapturable, match="of Holder, which a graph would not repeat"):
        capture(getattr(holder, method), (X,), holder)
    assert holder.last is None
    assert holder.calls == 0


def test_frozen_settings_notice_every_change():
    net, handler, scale = nn.Sequential(nn.Linear(2, 2), nn.Dropout()), KLScale(0.5), [1.0]
    factor = 2.0

    def program(x):
        return net(x) * factor

    def rate(value):
        net[1].p = value

    def close(value):
        nonlocal factor
        factor = value

    changes = {
        "p": (lambda: rate(0.1), lambda: rate(0.5)),
        "training": (net.eval, net.train),
        "beta": (lambda: setattr(handler, "beta", 1.0), lambda: setattr(handler, "beta", 0.5)),
        "factor": (lambda: close(3.0), lambda: close(2.0)),
    }
    frozen = Frozen(handler(program), scale)
    assert frozen.changed() is None
    with torch.no_grad():
        net[0].weight.zero_()  # read afresh: no setting
    assert frozen.changed() is None
    for name, (change, undo) in changes.items():
        change()
        assert name in str(frozen.changed())
        undo()
        assert frozen.changed() is None
    net[0].weight = nn.Parameter(torch.ones(2, 2))
    assert "weight" in str(frozen.changed())


def test_capture_leaves_what_the_function_changes_as_it_was():
    number, average, rest = torch.ones(()), torch.ones(3), torch.ones(4)

    def function(x):
        number.add_(1)
        average.mul_(0.5)
        average[1:].add_(x)
        return (average * number + rest[:3],)

    graph = capture(function, (torch.ones(2),))
    assert number.item() == 1
    assert torch.equal(average, torch.ones(3))
    assert [id(t) for t in graph.written] == [id(number), id(average)]
    assert torch.equal(graph(torch.ones(2))[0], torch.tensor([2.0, 4.0, 4.0]))
    assert torch.equal(average, torch.tensor([0.5, 1.5, 1.5]))


def test_running_statistics_count_as_written():
    norm = nn.BatchNorm1d(3)
    graph = capture(lambda x: (norm(x).sum(),), (torch.randn(5, 3),))
    written = {id(t) for t in graph.written}
    assert {id(norm.running_mean), id(norm.running_var), id(norm.num_batches_tracked)} <= written
