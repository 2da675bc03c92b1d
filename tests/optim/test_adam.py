"""Adam's update as an operator against torch's own, alone and within a step;
and any optimiser's.
"""

import copy

import pyro
import pytest
import torch
from torch import nn

from pyrovae import estimators
from pyrovae.compilation import capture, inductor
from pyrovae.compilation.capture import decomposed
from pyrovae.optim import AdamUpdate, OptimizerUpdate, prefer_fused
from pyrovae.optim.adam import decompositions
from pyrovae.svi import SVI, Step
from pyrovae.testing import LinearGaussian

EXACT = {"rtol": 1e-12, "atol": 1e-12}  # float64: the same operations, in nearly the same order
SHAPES = ((5,), (7,), (3, 4), (50, 37))


def train(kind, form, options):
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
        if form == "torch":
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
            continue
        if update is None or not update.ready():
            assert step in (0, 3)
            assert AdamUpdate.fits([optimizer], parameters)
            update = AdamUpdate([optimizer], parameters)
            assert update.ready()
            graph = capture(lambda *g, update=update: (update.apply(g), g[0].sum())[1:], gradients)
            if form == "formula":
                graph = decomposed(graph, gradients, decompositions(torch.device("cpu")))
        if form == "eager":
            update.apply(gradients)
        else:
            graph(*gradients)
    return parameters, [optimizer.state[p] for p in parameters]


@pytest.mark.parametrize("form", ["eager", "operator", "formula"])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize(
    "options", [{}, {"weight_decay": 0.1}, {"amsgrad": True}, {"maximize": True}], ids=str
)
def test_the_update_is_adam(form, kind, options):
    torch.testing.assert_close(train(kind, form, options), train(kind, "torch", options), **EXACT)


def test_parameters_without_a_gradient_rest():
    parameters = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = torch.optim.Adam(parameters)
    AdamUpdate([optimizer], parameters).apply([None, torch.ones(2)])
    assert torch.equal(parameters[0], torch.ones(2))
    assert not torch.equal(parameters[1], torch.ones(2))
    assert optimizer.state[parameters[0]]["step"] == 0


def test_moments_at_rest_do_not_become_denormal():
    """Denormal numbers slow a processor down; the compiled update takes them for zero."""
    parameter = nn.Parameter(torch.ones(40))
    optimizer = torch.optim.Adam([parameter])
    update = AdamUpdate([optimizer], [parameter])
    state = optimizer.state[parameter]
    state["exp_avg"].fill_(1.2e-38)
    state["exp_avg_sq"].fill_(1.1755e-38)
    assert update.ready()
    graph = capture(lambda g: (update.apply([g]), g.sum())[1:], [torch.zeros(40)])
    graph = decomposed(graph, [torch.zeros(40)], decompositions(torch.device("cpu")))
    graph(torch.zeros(40))
    assert (state["exp_avg"] == 0).all()
    assert (state["exp_avg_sq"] == 0).all()
    assert torch.tensor(1.2e-38) * 0.5 > 0  # the caller's arithmetic is left alone


def test_what_it_cannot_do_is_left_to_torch():
    parameter = nn.Parameter(torch.ones(2))
    for optimizer in (
        torch.optim.SGD([parameter], lr=0.1),
        torch.optim.Adam([parameter], lr=torch.tensor(0.1)),
        torch.optim.Adam([parameter], fused=False),
        torch.optim.NAdam([parameter]),
    ):
        assert not AdamUpdate.fits([optimizer], [parameter])
    optimizer = torch.optim.Adam([parameter])
    assert AdamUpdate.fits([optimizer], [parameter])
    assert not AdamUpdate.fits([optimizer], [])
    optimizer.register_step_post_hook(lambda *_: None)
    assert not AdamUpdate.fits([optimizer], [parameter])


def test_only_its_own_parameters_make_an_update_stale():
    mine, other = (nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = torch.optim.Adam([{"params": [mine]}, {"params": [other]}])
    update = AdamUpdate([optimizer], [mine])
    assert update.ready()
    other.grad = torch.ones(2)
    optimizer.step()  # gives the other parameter state
    assert update.ready()
    optimizer.state[mine]["exp_avg"] = torch.zeros(2)
    assert not update.ready()
    update = AdamUpdate([optimizer], [mine])
    optimizer.state.clear()
    assert not update.ready()
    update = AdamUpdate([optimizer], [mine])
    mine.data = torch.zeros(2)
    assert not update.ready()
    update = AdamUpdate([optimizer], [mine])
    del optimizer.param_groups[0]
    assert not update.ready()


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


@pytest.fixture(params=["captured", "lowered"])
def steps(request, monkeypatch):
    """A captured step and an eager one; "lowered" captures what Inductor would compile."""
    if request.param == "lowered":
        monkeypatch.setattr(inductor, "compile_graph", lambda *_: 0.0)
    return pair(compile=request.param == "lowered")


def pair(owners=None, *, compile=False, **options):
    made = []
    for captured, owner in zip(
        (True, False), owners or [LinearGaussian(shift=0.5) for _ in range(2)], strict=True
    ):
        parameters = list(owner.parameters())
        optimizer = torch.optim.Adam(parameters, lr=1e-2)
        made.append(
            Step(
                owner.model, owner.guide, estimators.ELBO(), optimizer, parameters,
                compile=compile if captured else False, capture=captured,
                **{"clip_norm": 1.0, **options},
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
    torch.testing.assert_close(
        *([step.optimizer.state[p] for p in step.parameters] for step in steps), **EXACT
    )
    assert steps[0].compiled.reason is None


@pytest.fixture
def x():
    return LinearGaussian(seed=7).sample(12, seed=1)


def test_the_step_is_captured_with_its_update(steps, x):
    assert steps[0].update.in_graph
    assert_same(steps, x, x, x[:5], x)
    assert len(steps[0].compiled.graphs) == 2
    assert_same(steps, x[:5], x[:5], x, x[:5])
    assert len(steps[0].compiled.graphs) == 2


def test_shapes_that_are_not_compiled_share_the_state(monkeypatch, x):
    compiled = []
    monkeypatch.setattr(inductor, "compile_graph", lambda graph, *_: compiled.append(graph) or 0.0)
    monkeypatch.setattr(inductor, "switch_after", lambda *_: 0)
    steps = pair(compile="auto")
    for _ in range(4):
        assert_same(steps, x, x[:5])
    assert len(compiled) == 1
    assert len(steps[0].compiled.graphs) == 2


def test_several_steps_share_one_look_at_the_settings(steps, x):
    for step in steps:
        torch.manual_seed(0)
        with step.guarded():
            for lr in (1e-2, 1e-3, 0.0):
                step.optimizer.param_groups[0]["lr"] = lr
                step(x, beta=1.0)
    torch.testing.assert_close(*(step.parameters for step in steps), **EXACT)


def test_schedules_reach_the_graph(steps, x):
    for gamma in (1.0, 0.1, 0.0):
        for step in steps:
            step.optimizer.param_groups[0]["lr"] = 1e-2 * gamma
        assert_same(steps, x, x)
    assert len(steps[0].compiled.graphs) == 1


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
    assert steps[0].update.in_graph


def test_settings_may_keep_changing(steps, x):
    """Those that are frozen into a graph then stay outside."""
    for beta in (0.9, 0.8, 0.7, 0.6, 0.5):
        for step in steps:
            step.optimizer.param_groups[0]["betas"] = (beta, 0.99)
        assert_same(steps, x, x)
    assert isinstance(steps[0].update, OptimizerUpdate)


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
    monkeypatch.setattr(inductor, "compile_graph", lambda *_: 0.0)
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
            assert svi._step.update.in_graph is within
            assert len(svi.compiled.graphs) == 1
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)
