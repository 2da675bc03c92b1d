"""Tracing a function to a graph, what it refuses, and the parts of a fast step on their own."""

import copy
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from pyrovae.compilation import matmul, native
from pyrovae.compilation.capture import Uncapturable, capture
from pyrovae.compilation.frozen import Frozen
from pyrovae.compilation.fused import FusedAdam, prefer_fused
from pyrovae.compilation.graphs import Engine
from pyrovae.compilation.lowering import worth_compiling
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


def test_a_changed_setting_is_captured_again_and_an_unsteady_one_given_up():
    holder = Holder()
    engine = Engine(holder, compile=False)

    def function(x):
        return (x * holder.calls,)

    for value in (2, 3):
        holder.calls = value
        graph = engine.graph(function, (X,))
        assert torch.equal(graph(X)[0], X * value)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for value in range(4, 20):
            holder.calls = value
            engine.graph(function, (X,))
    assert len([w for w in caught if "'calls' of Holder keeps changing" in str(w.message)]) == 1
    assert engine.graph(function, (X,)) is None


def test_compilation_is_decided_by_the_work_alone():
    graph = capture(lambda x: (x.exp().sin().sum(),), (X,))
    assert not worth_compiling(graph, None)
    assert not worth_compiling(graph, 100)
    assert worth_compiling(graph, 10**9)


LAYOUTS = {
    "plain": lambda a, b: (a, b),
    "weight transposed": lambda a, b: (a, b.t().contiguous().t()),
    "gradient transposed": lambda a, b: (a.t().contiguous().t(), b),
    "both": lambda a, b: (a.t().contiguous().t(), b.t().contiguous().t()),
}


@pytest.mark.parametrize("name", ["onednn", "native"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_other_products_are_the_same_products(name, layout):
    if name == "onednn" and not matmul.available():
        pytest.skip("this torch has no oneDNN")
    if name == "native" and native.kernels() is None:
        pytest.skip("there is no compiler")
    generator = torch.Generator().manual_seed(0)
    a, b = layout(
        torch.randn(96, 160, generator=generator), torch.randn(160, 112, generator=generator)
    )
    bias = torch.randn(112, generator=generator)
    graph = capture(lambda a, b, bias: (a @ b, torch.addmm(bias, a, b)), (a, b, bias))
    judged = []
    changed = matmul.rewrite(graph.module, lambda *asked: judged.append(asked) or name)
    assert changed == 2
    layouts = (a.shape, a.stride()), (b.shape, b.stride())
    assert judged == [
        (*layouts, biased, torch.get_num_threads(), False) for biased in (False, True)
    ]
    exact = a.double() @ b.double()
    # 160 products of unit variance in float32: rounding is near sqrt(160) * 6e-8 * 13.
    torch.testing.assert_close(graph(a, b, bias)[0].double(), exact, rtol=0, atol=1e-4)
    torch.testing.assert_close(graph(a, b, bias)[1].double(), exact + bias, rtol=0, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 5, 16, 33, 200])
@pytest.mark.parametrize(("inner", "columns"), [(1, 16), (5, 7), (20, 130), (513, 33), (784, 400)])
def test_our_products_hold_for_any_size(batch, inner, columns):
    """Tiles that are not whole, last panels that overlap, more terms than are packed at a time; no stray writes."""
    library = native.kernels()
    if library is None:
        pytest.skip("there is no compiler")
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    x, weight, bias = draw(batch, inner), draw(columns, inner), draw(columns)
    exact = x.double() @ weight.double().t()
    close = {"rtol": 0, "atol": 1e-5 * inner**0.5 + 1e-6}  # rounding walks at random over the terms
    for threads in (1, 2, 3):
        sizes = batch, inner, columns, threads
        for shift in (None, bias):
            out = torch.full((batch + 1, columns), 7.0)
            held = None if shift is None else shift.data_ptr()
            library.forward_float(x.data_ptr(), weight.data_ptr(), held, out.data_ptr(), *sizes)
            expected = exact if shift is None else exact + shift
            torch.testing.assert_close(out[:-1].double(), expected, **close)
            assert (out[-1] == 7).all()
        out = torch.full((batch + 1, columns), 7.0)
        turned = weight.t().contiguous()
        library.backward_float(x.data_ptr(), turned.data_ptr(), out.data_ptr(), *sizes)
        torch.testing.assert_close(out[:-1].double(), exact, **close)
        assert (out[-1] == 7).all()


@pytest.mark.parametrize("kept", ["native", "onednn", "a library of another day"])
def test_a_choice_that_cannot_be_had_gives_way(kept, monkeypatch):
    monkeypatch.setattr(matmul, "remembered", lambda *_: kept)
    monkeypatch.setattr(matmul, "available", lambda: False)
    monkeypatch.setattr(native, "kernels", lambda: None)
    assert matmul.choose.__wrapped__(((2, 3), (3, 1)), ((3, 4), (4, 1)), False, 1, True) is None


def test_the_fastest_run_is_chosen_where_it_is_clear(monkeypatch):
    clock = {"now": 0.0}
    monkeypatch.setattr(matmul.time, "perf_counter", lambda: clock["now"])

    def lasting(seconds):
        return lambda: clock.update(now=clock["now"] + seconds)

    assert matmul.fastest([lasting(1.0), lasting(0.9), lasting(0.5)]) == 2
    assert matmul.fastest([lasting(1.0), lasting(0.99)]) == 0
    assert matmul.fastest([lasting(1.0), lasting(0.9)], margin=0.8) == 0


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


def test_only_large_float32_products_are_rewritten():
    def changed(a, b):
        graph = capture(lambda a, b: (a @ b,), (a, b))
        return matmul.rewrite(graph.module, lambda *_: "native")

    assert changed(torch.ones(2, 3), torch.ones(3, 2)) == 0
    assert changed(torch.ones(200, 200).double(), torch.ones(200, 200).double()) == 0
    assert changed(torch.ones(200, 200), torch.ones(200, 200)) == 1


def _train(kind, fused, options):
    """Five steps with a learning rate that changes, a reload in the middle, and two groups."""
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.randn(5, 3, generator=generator), torch.randn(7, generator=generator)]
    parameters = [nn.Parameter(p.double()) for p in parameters]
    groups = [{"params": parameters[:1]}, {"params": parameters[1:], "lr": 3e-2}]
    optimizer = kind(groups, lr=1e-2, **options)
    prefer_fused(optimizer)
    ours = None
    for step in range(6):
        gradients = [
            torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters
        ]
        optimizer.param_groups[0]["lr"] = 1e-2 / (1 + step)
        if step == 3:
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        if fused and ours is not None and not ours.stale():
            ours.step(gradients)
            continue
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        if fused and FusedAdam.fits([optimizer], parameters):
            ours = FusedAdam([optimizer], parameters)
    assert not fused or ours is not None
    return parameters, [optimizer.state[p]["step"] for p in parameters]


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize(
    "options", [{}, {"weight_decay": 0.1}, {"amsgrad": True}, {"maximize": True}], ids=str
)
def test_fused_adam_is_adam(kind, options):
    (left, left_counts), (right, right_counts) = (
        _train(kind, True, options),
        _train(kind, False, options),
    )
    torch.testing.assert_close(left, right, rtol=1e-13, atol=1e-13)
    assert left_counts == right_counts == [6, 6]


def test_choices_of_the_caller_are_kept():
    parameter = nn.Parameter(torch.ones(2))
    for options in (
        {"foreach": True},
        {"fused": False},
        {"capturable": True},
        {"lr": torch.tensor(0.1)},
    ):
        optimizer = torch.optim.Adam([parameter], **options)
        before = dict(optimizer.param_groups[0])
        prefer_fused(optimizer)
        assert {k: v for k, v in optimizer.param_groups[0].items() if k != "params"} == {
            k: v for k, v in before.items() if k != "params"
        }


def test_engine_refuses_unknown_words():
    with pytest.raises(ValueError, match="compile must be True, False or 'auto', found 'always'"):
        Engine(compile="always")


@pytest.mark.slow
def test_inductor_keeps_draws_and_changes_buffers():
    count = torch.zeros(3, dtype=torch.float64)

    def function(x):
        count.add_(1)
        return (x + torch.randn_like(x)).exp(), x.sum()

    engine = Engine(compile=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        graph = engine.graph(function, (X,))
    assert graph.kind == "compiled"
    torch.manual_seed(0)
    found = graph(X)
    assert torch.equal(count, torch.ones(3, dtype=torch.float64))
    torch.manual_seed(0)
    torch.testing.assert_close(found, function(X), rtol=1e-12, atol=1e-12)
