"""A compiled function gives the results of the function itself, and says when it cannot."""

import dataclasses
import warnings
from collections import UserDict
from types import ModuleType, SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from pyrovae.compilation import capture, compile, inductor
from pyrovae.compilation.compiled import MOST_GRAPHS

X = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)


class Result(NamedTuple):
    """A nest of tensors and plain values."""

    total: torch.Tensor
    rest: list


def test_nested_results_and_plain_arguments():
    def function(x, power, *, shift=None):
        y = x**power if shift is None else x**power + shift
        return Result(y.sum(), [y, None, power])

    compiled = compile(function, backend=False)
    for arguments, options in [((X, 2), {}), ((X, 3), {}), ((X, 2), {"shift": X})]:
        found, expected = compiled(*arguments, **options), function(*arguments, **options)
        assert isinstance(found, Result)
        assert torch.equal(found.total, expected.total)
        assert torch.equal(found.rest[0], expected.rest[0])
        assert found.rest[1:] == expected.rest[1:]
    assert len(compiled.graphs) == 3
    assert compiled.reason is None


def test_plain_arguments_of_equal_value_and_other_type_are_told_apart():
    compiled = compile(lambda x, n: (x * n, type(n)), backend=False)
    for n in (1, 1.0, True):
        assert compiled(X, n)[1] is type(n)


def test_an_error_of_the_function_is_the_callers():
    def function(x):
        if len(x) > 3:
            raise ValueError("too many")
        return x.sum()

    compiled = compile(function, backend=False)
    with pytest.raises(ValueError, match="too many"):
        compiled(X)
    assert compiled.reason is None
    assert torch.equal(compiled(X[:2]), X[:2].sum())
    assert len(compiled.graphs) == 1


def test_what_makes_no_graph_runs_itself_with_one_warning():
    compiled = compile(lambda x: x if x.sum() > 0 else -x, backend=False)
    with pytest.warns(
        UserWarning, match="Running eagerly, without a captured graph: it reads the value"
    ):
        assert torch.equal(compiled(X - 1), 1 - X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(compiled(X + 1), X + 1)
    assert "reads the value" in compiled.reason


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ([1], "argument"),
        ({2}, "neither a tensor nor hashable"),
        (X.clone().requires_grad_(), "gradient"),
    ],
    ids=["list", "set", "gradient"],
)
def test_arguments_that_no_graph_takes(argument, reason):
    compiled = compile(lambda x, other: x.sum(), backend=False)
    if reason == "argument":  # a list is a nest of arguments
        assert torch.equal(compiled(X, argument), X.sum())
        return
    with pytest.warns(UserWarning, match=reason):
        assert torch.equal(compiled(X, argument), X.sum())


class Holder(nn.Module):
    """A setting that may change."""

    def __init__(self):
        super().__init__()
        self.calls = 0


def test_a_changed_setting_is_captured_again_and_an_unsteady_one_given_up():
    holder = Holder()
    compiled = compile(lambda x: x * holder.calls, settings=(holder,), backend=False)
    for value in (2, 3):
        holder.calls = value
        assert torch.equal(compiled(X), X * value)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for value in range(4, 20):
            holder.calls = value
            assert torch.equal(compiled(X), X * value)
    assert len([w for w in caught if "'calls' of Holder keeps changing" in str(w.message)]) == 1
    assert not compiled.enabled


def test_settings_are_checked_once_for_the_calls_inside_a_guard():
    holder = Holder()
    holder.calls = 2
    compiled = compile(lambda x: x * holder.calls, settings=(holder,), backend=False)
    with compiled.guarded():
        assert torch.equal(compiled(X), X * 2)
        holder.calls = 5  # against the contract: shows that nobody looks
        assert torch.equal(compiled(X), X * 2)
    assert torch.equal(compiled(X), X * 5)


def test_more_layouts_than_graphs_run_themselves():
    compiled = compile(lambda x: x.sum(), backend=False)
    for size in range(1, MOST_GRAPHS + 1):
        assert compiled(torch.ones(size)) == size
    more = torch.ones(MOST_GRAPHS + 1)
    with pytest.warns(UserWarning, match="Further batch shapes run eagerly: more than 8"):
        assert compiled(more) == len(more)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiled(torch.ones(MOST_GRAPHS + 2)) == MOST_GRAPHS + 2
    assert len(compiled.graphs) == MOST_GRAPHS


def test_compilation_is_decided_by_the_work_alone():
    graph = capture(lambda x: (x.exp().sin().sum(),), (X,))
    assert not inductor.worth_compiling(graph, None)
    assert not inductor.worth_compiling(graph, 100)
    assert inductor.worth_compiling(graph, 10**9)


def test_without_a_compiler_the_graph_is_captured_and_that_is_said(monkeypatch):
    monkeypatch.setattr(inductor, "has_compiler", lambda device: False)
    compiled = compile(lambda x: x.sum(), backend=True)
    with pytest.warns(
        UserWarning, match="captured but not compiled: no compiler for cpu is installed"
    ):
        assert torch.equal(compiled(X), X.sum())
    assert [graph.kind for graph in compiled.graphs] == ["captured"]


def test_a_compiler_that_fails_leaves_the_captured_graph(monkeypatch):
    def fail(*_):
        raise RuntimeError("no space left")

    monkeypatch.setattr(inductor, "compile_graph", fail)
    compiled = compile(lambda x: x.sum(), backend=True)
    with pytest.warns(UserWarning, match="Inductor failed with RuntimeError.*no space left"):
        assert torch.equal(compiled(X), X.sum())
    assert [graph.kind for graph in compiled.graphs] == ["captured"]


def test_unknown_words_are_refused():
    with pytest.raises(ValueError, match="compile must be True, False or 'auto', found 'always'"):
        compile(lambda x: x, backend="always")


@pytest.mark.slow
def test_inductor_keeps_draws_and_changes_buffers():
    count = torch.zeros(3, dtype=torch.float64)

    def function(x):
        count.add_(1)
        return (x + torch.randn_like(x)).exp(), x.sum()

    compiled = compile(function, backend=True)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = compiled(X)
    assert [graph.kind for graph in compiled.graphs] == ["compiled"]
    assert torch.equal(count, torch.ones(3, dtype=torch.float64))
    torch.manual_seed(0)
    torch.testing.assert_close(found, function(X), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_compiled_changes_show_in_the_versions_of_tensors():
    """Autograd refuses a backward pass through a tensor that a compiled call has changed."""
    parameter = nn.Parameter(torch.ones(3))

    def function(x):
        with torch.no_grad():
            parameter.add_(x)
        return x.sum()

    compiled = compile(function, backend=True)
    loss = (parameter**2).sum()
    compiled(torch.ones(3))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@dataclasses.dataclass
class Settings:
    """What a program may read its numbers from."""

    scale: float = 2.0


class Plain:
    """The same without a decorator."""

    def __init__(self, scale=2.0):
        self._scale = scale

    @property
    def scale(self):
        return self._scale

    @scale.setter
    def scale(self, value):
        self._scale = value


class Slotted:
    __slots__ = ("scale",)

    def __init__(self):
        self.scale = 2.0


class Shared:
    """Settings as a class, which nobody makes an object of."""

    scale = 2.0


SCALE = 2.0
module = ModuleType("settings_of_a_user")
module.scale = 2.0


def helper():
    """A function that a program calls reads the global for it."""
    return SCALE * module.scale


def set_scale(holder):
    holder.scale = 3.0


HOLDERS = {
    "dictionary": ({"scale": 2.0}, lambda h: h["scale"], lambda h: h.update(scale=3.0)),
    "list": ([2.0], lambda h: h[0], lambda h: h.__setitem__(0, 3.0)),
    "set": ({2.0}, lambda h: max(h), lambda h: h.add(3.0)),
    "namespace": (SimpleNamespace(scale=2.0), lambda h: h.scale, set_scale),
    "dataclass": (Settings(), lambda h: h.scale, set_scale),
    "object": (Plain(), lambda h: h.scale, set_scale),
    "slots": (Slotted(), lambda h: h.scale, set_scale),
    "object in an object": (
        SimpleNamespace(cfg=Plain()),
        lambda h: h.cfg.scale,
        lambda h: set_scale(h.cfg),
    ),
    "class": (type("Shared", (Shared,), {"scale": 2.0}), lambda h: h.scale, set_scale),
    "class of an object": (
        type("Other", (Shared,), {"scale": 2.0})(),
        lambda h: h.scale,
        lambda h: set_scale(type(h)),
    ),
    "object beside its class": (Shared(), lambda h: h.scale, set_scale),
    "configuration parser": (
        UserDict(scale=2.0),
        lambda h: h["scale"],
        lambda h: h.update(scale=3.0),
    ),
    "nested": ({"inner": [2.0]}, lambda h: h["inner"][0], lambda h: h["inner"].__setitem__(0, 3.0)),
    "array": (np.array([2.0, 1.0]), lambda h: float(h[0]), lambda h: h.__setitem__(0, 3.0)),
    "array as a tensor": (np.array([2.0]), lambda h: torch.tensor(h), lambda h: h.fill(3.0)),
    "array in an object": (
        Plain(np.array([2.0])),
        lambda h: float(h.scale[0]),
        lambda h: h.scale.fill(3.0),
    ),
}


@pytest.mark.parametrize(("holder", "read", "change"), HOLDERS.values(), ids=HOLDERS)
def test_numbers_within_containers_and_objects_are_settings(holder, read, change):
    def function(x):
        return x * read(holder)

    compiled = compile(function, settings=(function,), backend=False)
    assert torch.equal(compiled(X), X * 2)
    change(holder)
    assert torch.equal(compiled(X), X * 3)
    assert compiled.reason is None


def test_tuples_are_compared_by_value_and_their_tensors_by_identity():
    holder, two, three = Holder(), torch.tensor(2.0), torch.tensor(3.0)
    compiled = compile(lambda x: x * holder.pair[0] + holder.pair[1][0], settings=(holder,),
                       backend=False)  # fmt: skip
    for pair, graphs in [((two, (1.0,)), 1), ((two, (1.0,)), 1), ((three, (1.0,)), 2),
                         ((three, (4.0,)), 3), ((torch.tensor(3.0), (4.0,)), 4)]:  # fmt: skip
        holder.pair = pair
        assert torch.equal(compiled(X), X * pair[0] + pair[1][0])
        assert compiled._changes == graphs - 1
    assert compiled.reason is None


class Experiment:
    """A user's object with programs among its methods, and much that they never read."""

    def __init__(self):
        self.cfg = Plain()
        self.rows = np.zeros(2**18)  # two megabytes
        self.trainer = Plain(0)

    def program(self, x):
        return self._scaled(x)

    def _scaled(self, x):
        return x * self.cfg.scale * helper()

    def watched(self, x):
        return x * float(self.rows[0])


def test_helpers_are_followed_and_what_no_program_names_is_not(monkeypatch):
    experiment = Experiment()
    compiled = compile(experiment.program, settings=(experiment.program,), backend=False)
    assert torch.equal(compiled(X), X * 8)
    experiment.rows[0] = 1.0
    experiment.trainer = Plain(1)
    (graph,) = compiled.graphs
    experiment.trainer.calls = 1
    assert torch.equal(compiled(X), X * 8)
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert torch.equal(compiled(X), X * 12)
    monkeypatch.setattr(module, "scale", 1.0)
    assert torch.equal(compiled(X), X * 6)
    assert compiled.reason is None
    assert compiled.graphs != [graph]


def test_a_large_array_that_a_program_names_is_refused_unless_it_is_read_only():
    experiment = Experiment()
    compiled = compile(experiment.watched, settings=(experiment.watched,), backend=False)
    with pytest.warns(UserWarning, match=r"'rows' of Experiment, a NumPy array of 2.0 MiB"):
        assert torch.equal(compiled(X), X * 0)
    experiment.rows[0] = 2.0
    assert torch.equal(compiled(X), X * 2)
    experiment.rows.flags.writeable = False
    compiled = compile(experiment.watched, settings=(experiment.watched,), backend=False)
    assert torch.equal(compiled(X), X * 2)
    assert compiled.reason is None


def test_another_module_in_the_place_of_one_is_a_setting():
    net = nn.Sequential(nn.Linear(3, 3))
    compiled = compile(net, settings=(net,), backend=False)
    compiled(torch.ones(2, 3))
    net[0] = nn.Identity()
    assert torch.equal(compiled(torch.ones(2, 3)), torch.ones(2, 3))


def test_globals_read_within_a_comprehension_are_settings(monkeypatch):
    def function(x):
        return sum((lambda y: y * SCALE)(x) for _ in range(1))

    compiled = compile(function, settings=(function,), backend=False)
    assert torch.equal(compiled(X), X * 2)
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert torch.equal(compiled(X), X * 3)


def test_a_list_at_whose_end_the_function_notes_calls_may_be_captured():
    calls = []

    def function(x):
        calls.append(1)
        return x * 2

    compiled = compile(function, settings=(function,), backend=False)
    for _ in range(3):
        assert torch.equal(compiled(X), X * 2)
    assert compiled.reason is None
    assert len(calls) == 1
