"""Adam's update with the captured step: the same numbers as torch's own, whatever happens in between."""

import copy

import pyro
import pytest
import torch
from torch import nn

from pyrovae import VAE, estimators, nets
from pyrovae.compilation import lowering, native
from pyrovae.compilation.capture import capture
from pyrovae.compilation.fused import prefer_fused
from pyrovae.compilation.native import update as native_update
from pyrovae.compilation.native.update import NativeUpdate
from pyrovae.compilation.update import Update
from pyrovae.svi import SVI, Step
from pyrovae.testing import LinearGaussian

EXACT = {"rtol": 1e-12, "atol": 1e-12}  # float64: the same operations, in nearly the same order


SHAPES = (
    (5,),
    (7,),
    (3, 4),
    (50, 37),
)  # the last takes the kernel several tiles, none of them whole


def train(kind, captured, options):
    """Six steps with a learning rate that changes, a reload in the middle, and two groups."""
    generator = torch.Generator().manual_seed(0)
    parameters = [
        nn.Parameter(torch.randn(n, generator=generator, dtype=torch.float64)) for n in SHAPES
    ]
    groups = [
        {"params": parameters[:1]},
        {"params": parameters[1:], "lr": 3e-2, "betas": (0.5, 0.9)},
    ]
    optimizer = kind(groups, lr=1e-2, **options)
    prefer_fused(optimizer)
    update = graph = None
    for step in range(6):
        gradients = [
            torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters
        ]
        optimizer.param_groups[0]["lr"] = 1e-2 / (1 + step)
        if step == 3:
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        if captured is None:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
            continue
        if update is None or not update.ready():
            assert step == 0 or (step == 3 and captured is Update)
            assert captured.fits([optimizer], parameters)
            update = captured([optimizer], parameters)
            assert update.ready()
            if captured is Update:
                graph = capture(
                    lambda *g, update=update: (update.apply(g), g[0].sum())[1:], gradients
                )
        if captured is Update:
            graph(*gradients)
        update.finish(gradients)
    return parameters, [optimizer.state[p] for p in parameters]


@pytest.mark.parametrize("update", [Update, NativeUpdate])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize(
    "options", [{}, {"weight_decay": 0.1}, {"amsgrad": True}, {"maximize": True}], ids=str
)
def test_the_update_is_adam(update, kind, options):
    torch.testing.assert_close(train(kind, update, options), train(kind, None, options), **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("rows", "columns", "inner"),
    [(1, 16, 1), (6, 32, 4), (13, 100, 3), (25, 513, 16), (12, 1030, 130), (8, 300, 600)],
)
def test_a_gradient_may_come_as_its_factors(rows, columns, inner, dtype):
    """Strips and tiles that are not whole, columns of more than one strip."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)  # noqa: E731
    start = draw(rows, columns)
    parameters = [nn.Parameter(start.clone()) for _ in range(2)]
    optimizers = [torch.optim.Adam([p], lr=1e-2) for p in parameters]
    update = NativeUpdate(optimizers[:1], parameters[:1])
    update.factored = [True]
    for _ in range(3):
        left, right = draw(inner, rows), draw(inner, columns)
        assert update.ready()
        update.finish([left, right])
        parameters[1].grad = (left.double().t() @ right.double()).to(dtype)
        optimizers[1].step()
    states = [o.state[p] for o, p in zip(optimizers, parameters, strict=True)]
    # In single precision, a product of `inner` terms of size one in another order.
    close = EXACT if dtype is torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(*states, **close)
    # An update has the size of the learning rate, and turns on the gradient's sign where that is about zero.
    far = (parameters[0] - parameters[1]).abs() > close["atol"]
    assert far.float().mean() < (0 if dtype is torch.float64 else 1e-3) + 1e-9


def test_a_step_shows_in_the_parameters_version():
    """Caches go by it (Vamp's components), and autograd refuses a graph whose inputs have changed."""
    parameter = nn.Parameter(torch.ones(3))
    update = NativeUpdate([torch.optim.Adam([parameter])], [parameter])
    loss = (parameter**2).sum()
    assert update.ready()
    update.finish([torch.ones(3)])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_moments_at_rest_do_not_become_denormal():
    """They slow a processor down; the kernel takes them for zero, and leaves the caller's arithmetic alone."""
    parameter = nn.Parameter(torch.ones(40))
    optimizer = torch.optim.Adam([parameter])
    update = NativeUpdate([optimizer], [parameter])
    optimizer.state[parameter]["exp_avg"].fill_(1.2e-38)
    assert update.ready()
    update.finish([torch.zeros(40)])
    assert (optimizer.state[parameter]["exp_avg"] == 0).all()
    assert torch.tensor(1.2e-38) * 0.5 > 0


def test_what_it_cannot_do_is_left_to_torch():
    parameter = nn.Parameter(torch.ones(2))
    for optimizer in (
        torch.optim.SGD([parameter], lr=0.1),
        torch.optim.Adam([parameter], lr=torch.tensor(0.1)),
        torch.optim.Adam([parameter], fused=False),
        torch.optim.NAdam([parameter]),
    ):
        assert not Update.fits([optimizer], [parameter])
        assert not NativeUpdate.fits([optimizer], [parameter])
    optimizer = torch.optim.Adam([parameter])
    for kind in (Update, NativeUpdate):
        assert kind.fits([optimizer], [parameter])
        assert not kind.fits([optimizer], [])
    optimizer.register_step_post_hook(lambda *_: None)
    for kind in (Update, NativeUpdate):
        assert not kind.fits([optimizer], [parameter])


@pytest.mark.parametrize("kind", [Update, NativeUpdate])
def test_only_its_own_parameters_make_an_update_stale(kind):
    mine, other = (nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = torch.optim.Adam([{"params": [mine]}, {"params": [other]}])
    update = kind([optimizer], [mine])
    assert update.ready()
    assert not update.moved()
    other.grad = torch.ones(2)
    optimizer.step()  # gives the other parameter state
    assert not update.moved()
    optimizer.state[mine]["exp_avg"] = torch.zeros(2)
    assert update.moved()
    update = kind([optimizer], [mine])
    optimizer.state.clear()
    assert update.moved()
    update = kind([optimizer], [mine])
    mine.data = torch.zeros(2)
    assert update.moved()
    update = kind([optimizer], [mine])
    del optimizer.param_groups[0]
    assert update.moved()
    assert not update.ready()


def test_the_kernel_is_for_dense_memory():
    for parameter in (torch.ones(3, 4).t(), torch.ones(2, dtype=torch.bfloat16)):
        parameter = parameter.requires_grad_()
        assert Update.fits([torch.optim.Adam([parameter])], [parameter])
        assert not NativeUpdate.fits([torch.optim.Adam([parameter])], [parameter])


def test_without_the_kernel_the_update_is_in_the_graph(monkeypatch, x):
    monkeypatch.setattr(native, "kernels", lambda: None)
    steps = pair(monkeypatch, True)
    assert_same(steps, x, x)
    assert kinds(steps[0]) == [Update]


@pytest.fixture(params=[Update, NativeUpdate])
def steps(request, monkeypatch):
    if request.param is Update:
        monkeypatch.setattr(native, "kernels", lambda: None)
    return pair(monkeypatch, True)


def pair(monkeypatch, compile, owners=None, **options):
    """A step captured whole and one that runs eagerly, of the same programs; Inductor is left out."""
    monkeypatch.setattr(lowering, "compile_graph", lambda *_: 0.0)
    made = []
    for choice, owner in zip(
        (compile, False), owners or [LinearGaussian(shift=0.5) for _ in range(2)], strict=True
    ):
        parameters = list(owner.parameters())
        optimizer = torch.optim.Adam(parameters, lr=1e-2)
        made.append(
            Step(
                owner.model, owner.guide, estimators.ELBO(), optimizer, parameters,
                compile=choice, capture=bool(choice), **{"clip_norm": 1.0, **options},
            )
        )  # fmt: skip
    return made


def assert_same(steps, *batches, seed=1):
    reports = []
    for step in steps:
        torch.manual_seed(seed)
        reports.append([torch.stack(step(batch)) for batch in batches])
    torch.testing.assert_close(*reports, **EXACT)
    torch.testing.assert_close(*(step.parameters for step in steps), **EXACT)
    torch.testing.assert_close(*(_state(step) for step in steps), **EXACT)


def _state(step):
    return [step.optimizer.state[p] for p in step.parameters]


def kinds(step):
    return [type(graph.notes["update"]) for graph in step.engine.graphs.values()]


def updates(step):
    return [graph.notes["update"] is not None for graph in step.engine.graphs.values()]


@pytest.fixture
def x():
    return LinearGaussian(seed=7).sample(12, seed=1)


def test_a_step_gives_factors(monkeypatch):
    monkeypatch.setattr(native_update, "SMALLEST", 0)
    monkeypatch.setattr(native_update, "_fused_is_faster", lambda *_: True)
    vaes = [VAE((40,), 18, encoder=nets.MLP(32), decoder=nets.MLP(32)).double() for _ in range(2)]
    vaes[1].load_state_dict(vaes[0].state_dict())
    steps = pair(monkeypatch, True, owners=vaes, clip_norm=None)
    x = torch.rand(5, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64).round()
    assert_same(steps, x, x, x)
    (graph,) = steps[0].engine.graphs.values()
    assert sum(graph.notes["update"].factored) == 4
    clipped = pair(monkeypatch, True, owners=vaes, clip_norm=1.0)
    assert_same(clipped, x, x)
    (graph,) = clipped[0].engine.graphs.values()
    assert not any(graph.notes["update"].factored)  # the norm needs the gradients themselves


def test_factors_outlive_the_update():
    """A factor that is a parameter would be changed while it is read."""
    weight, x = nn.Parameter(torch.ones(5, 20)), torch.ones(5, 30)

    def graph(right):
        made = capture(lambda x: (torch.mm(x.t(), right(x)),), [x])
        (output,) = made.module.graph.find_nodes(op="output")
        constants = made.module.graph.find_nodes(op="placeholder")[: len(made.constants)]
        return native_update._factors(output.args[0][0], set(constants))

    assert graph(lambda x: x[:, :20] * weight.detach()) is not None
    assert graph(lambda x: weight.detach()) is None
    assert graph(lambda x: weight.detach().view(20, 5).view(5, 20)) is None
    assert graph(lambda x: weight.detach()[:, 3:].unsqueeze(0).squeeze(0)) is None


def test_the_step_is_captured_with_its_update(steps, x):
    assert_same(steps, x, x, x[:5], x)
    assert updates(steps[0]) == [True]
    assert_same(steps, x[:5], x[:5], x, x[:5])
    assert updates(steps[0]) == [True, True]


def test_shapes_that_are_not_compiled_share_the_state(monkeypatch, x):
    steps = pair(monkeypatch, "auto", steps=10**9)
    for _ in range(4):
        assert_same(steps, x, x[:5])
    assert updates(steps[0]) == [True, False]


def test_schedules_reach_the_graph(steps, x):
    for gamma in (1.0, 0.1, 0.0):
        for step in steps:
            step.optimizer.param_groups[0]["lr"] = 1e-2 * gamma
        assert_same(steps, x, x)
    assert updates(steps[0]) == [True]


def test_torch_schedulers_find_their_steps(steps, x, recwarn):
    for step in steps:
        scheduler = torch.optim.lr_scheduler.ExponentialLR(step.optimizer, 0.5)
        torch.manual_seed(0)
        for _ in range(3):
            step(x)
            scheduler.step()
    torch.testing.assert_close(*(step.parameters for step in steps), **EXACT)
    assert not [w for w in recwarn if "lr_scheduler" in str(w.message)]


def test_a_loaded_state_is_used(steps, x):
    assert_same(steps, x, x)
    saved = copy.deepcopy(steps[0].optimizer.state_dict())
    assert_same(steps, x, x)
    for step in steps:
        step.optimizer.load_state_dict(copy.deepcopy(saved))
    assert_same(steps, x, x)
    assert updates(steps[0]) == [True]


def test_settings_may_keep_changing(steps, x):
    """Those that are frozen into a graph then stay outside."""
    for beta in (0.9, 0.8, 0.7, 0.6, 0.5):
        for step in steps:
            step.optimizer.param_groups[0]["betas"] = (beta, 0.99)
        kind = kinds(steps[0])
        assert_same(steps, x, x)
    assert kinds(steps[0]) == [NativeUpdate if kind == [NativeUpdate] else type(None)]


def test_frozen_parameters_rest(steps, x):
    assert_same(steps, x)
    for frozen in (True, False):
        for step in steps:
            step.parameters[0].requires_grad_(not frozen)
        assert_same(steps, x, x)


def test_gradients_alone_take_no_step(steps, x):
    before = [p.detach().clone() for p in steps[0].parameters]
    for step in steps:
        torch.manual_seed(0)
        step.gradients(x)
    torch.testing.assert_close(*([p.grad for p in step.parameters] for step in steps), **EXACT)
    torch.testing.assert_close([p.detach() for p in steps[0].parameters], before, rtol=0, atol=0)
    assert_same(steps, x)


def optimizers():
    kind = {"optimizer": torch.optim.Adam, "optim_args": {"lr": 1e-2}, "gamma": 0.5}
    by_name = lambda name: {"lr": 1e-2 if name.endswith("bias") else 3e-2}  # noqa: E731
    return {
        "adam": (lambda: pyro.optim.Adam({"lr": 1e-2, "betas": (0.8, 0.99)}), True),
        "adamw, by name": (lambda: pyro.optim.AdamW(by_name), True),
        "scheduled": (lambda: pyro.optim.ExponentialLR(dict(kind)), True),
        "clipped": (lambda: pyro.optim.Adam({"lr": 1e-2}, {"clip_norm": 0.1}), False),
        "sgd": (lambda: pyro.optim.SGD({"lr": 1e-3, "momentum": 0.9}), False),
    }


@pytest.mark.parametrize("name", optimizers())
def test_svi_takes_stock_pyros_steps(monkeypatch, name, x):
    monkeypatch.setattr(lowering, "compile_graph", lambda *_: 0.0)
    make, within = optimizers()[name]
    found = []
    for kind in ("ours", "stock"):
        pyro.clear_param_store()
        owner, optim = LinearGaussian(shift=0.5), make()
        programs = owner.model, owner.guide, optim
        if kind == "ours":
            svi = SVI(*programs, estimators.ELBO(), compile=True)
        else:
            svi = pyro.infer.SVI(*programs, pyro.infer.Trace_ELBO())
        torch.manual_seed(0)
        losses = []
        for step in range(5):
            losses.append(svi.step(x))
            if name == "scheduled" and step % 2:
                optim.step()
        found.append((torch.tensor(losses), list(owner.parameters())))
        if kind == "ours":
            assert updates(svi) == [within]
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)
