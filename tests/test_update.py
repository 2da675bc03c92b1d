"""Adam's update within the captured step: the same numbers as torch's own, whatever happens in between."""

import copy

import pyro
import pytest
import torch
from torch import nn

from pyrovae import estimators
from pyrovae.engine import lowering
from pyrovae.engine.capture import capture
from pyrovae.engine.fused import prefer_fused
from pyrovae.engine.update import Update
from pyrovae.svi import SVI, Step
from pyrovae.testing import LinearGaussian

EXACT = {"rtol": 1e-12, "atol": 1e-12}  # float64: the same operations, in nearly the same order


def train(kind, captured, options):
    """Six steps with a learning rate that changes, a reload in the middle, and two groups."""
    generator = torch.Generator().manual_seed(0)
    parameters = [nn.Parameter(torch.randn(n, generator=generator, dtype=torch.float64)) for n in (5, 7)]
    groups = [{"params": parameters[:1]}, {"params": parameters[1:], "lr": 3e-2, "betas": (0.5, 0.9)}]
    optimizer = kind(groups, lr=1e-2, **options)
    prefer_fused(optimizer)
    update = graph = None
    for step in range(6):
        gradients = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
        optimizer.param_groups[0]["lr"] = 1e-2 / (1 + step)
        if step == 3:
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        if not captured:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
            continue
        if update is None or update.stale():
            assert step in (0, 3)
            assert Update.fits([optimizer], parameters)
            update = Update([optimizer], parameters)
            graph = capture(lambda *g, update=update: (update.apply(g), g[0].sum())[1:], gradients)
        update.refresh()
        graph(*gradients)
    return parameters, [optimizer.state[p] for p in parameters]


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize(
    "options", [{}, {"weight_decay": 0.1}, {"amsgrad": True}, {"maximize": True}], ids=str
)
def test_the_update_is_adam(kind, options):
    torch.testing.assert_close(train(kind, True, options), train(kind, False, options), **EXACT)


def test_what_it_cannot_do_is_left_to_torch():
    parameter = nn.Parameter(torch.ones(2))
    for optimizer in (
        torch.optim.SGD([parameter], lr=0.1),
        torch.optim.Adam([parameter], lr=torch.tensor(0.1)),
        torch.optim.Adam([parameter], fused=False),
        torch.optim.NAdam([parameter]),
    ):
        assert not Update.fits([optimizer], [parameter])
    optimizer = torch.optim.Adam([parameter])
    assert Update.fits([optimizer], [parameter])
    assert not Update.fits([optimizer], [])
    optimizer.register_step_post_hook(lambda *_: None)
    assert not Update.fits([optimizer], [parameter])


@pytest.fixture
def steps(monkeypatch):
    return pair(monkeypatch, True)


def pair(monkeypatch, compile, **options):
    """A step captured whole and one that runs eagerly, of the same programs; Inductor is left out."""
    monkeypatch.setattr(lowering, "compile_graph", lambda *_: 0.0)
    made = []
    for choice in (compile, False):
        owner = LinearGaussian(shift=0.5)
        parameters = list(owner.parameters())
        optimizer = torch.optim.Adam(parameters, lr=1e-2)
        made.append(
            Step(
                owner.model, owner.guide, estimators.ELBO(), optimizer, parameters,
                compile=choice, capture=bool(choice), clip_norm=1.0, **options,
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


def updates(step):
    return [graph.notes["update"] is not None for graph in step.engine.graphs.values()]


@pytest.fixture
def x():
    return LinearGaussian(seed=7).sample(12, seed=1)


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


def test_settings_that_keep_changing_stay_outside_the_graph(steps, x):
    for beta in (0.9, 0.8, 0.7, 0.6, 0.5):
        for step in steps:
            step.optimizer.param_groups[0]["betas"] = (beta, 0.99)
        assert_same(steps, x, x)
    assert updates(steps[0]) == [False]


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
