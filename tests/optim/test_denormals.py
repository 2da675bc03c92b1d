"""No denormal numbers stay in an optimiser's state, whichever way a step runs."""

from functools import partial

import pyro
import pytest
import torch

from pyrovae import VAE, estimators, nets
from pyrovae.optim import flush_denormals
from pyrovae.svi import SVI, Step

# Moments that decay by 0.75 a step pass 1e-38 within 350 steps, and stay denormal for ever: three
# quarters of the smallest number round to that number.
ADAM = {"lr": 1e-3, "betas": (0.75, 0.75)}
OPTIMIZERS = {
    "Adam": partial(torch.optim.Adam, **ADAM),
    "AdamW": partial(torch.optim.AdamW, **ADAM),
    "Adam, not fused": partial(torch.optim.Adam, fused=False, **ADAM),
    "NAdam": partial(torch.optim.NAdam, **ADAM),
    "RMSprop": partial(torch.optim.RMSprop, lr=1e-3, alpha=0.75, momentum=0.75),
    "SGD": partial(torch.optim.SGD, lr=1e-4, momentum=0.75),
}
NUM_STEPS = 350


def build():
    torch.manual_seed(0)
    return VAE(3, 1, encoder=nets.MLP(8), decoder=nets.MLP(2))


def batches():
    """The first batch alone moves the weights of the first pixel in the encoder."""
    lit = torch.ones(2, 3)
    dark = lit.clone()
    dark[:, 0] = 0
    yield lit
    for _ in range(NUM_STEPS):
        yield dark


def num_denormal(optimizer) -> int:
    tensors = [t for state in optimizer.state.values() for t in state.values()]
    moments = [t for t in tensors if isinstance(t, torch.Tensor) and t.dim()]
    assert moments
    tiny = torch.finfo(torch.float32).tiny
    return sum(int(((m != 0) & (m.abs() < tiny)).sum()) for m in moments)


def train(optimizer, *, guarded: bool, **how):
    vae = build()
    parameters = list(vae.parameters())
    made = optimizer(parameters)
    step = Step(vae.model, vae.guide, estimators.ELBO(), made, parameters, **how)
    if not guarded:
        for x in batches():
            step(x)
        return step
    remaining = list(batches())
    while remaining:
        now, remaining = remaining[:50], remaining[50:]
        with step.guarded():
            for x in now:
                step(x)
    return step


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_captured_and_optimisers_of_the_user(name):
    step = train(OPTIMIZERS[name], guarded=name != "NAdam", compile=False)
    assert step.compiled.reason is None
    assert num_denormal(step.optimizer) == 0


def test_eager_steps():
    assert num_denormal(train(OPTIMIZERS["Adam"], guarded=True, capture=False).optimizer) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
def test_compiled_steps(name):
    step = train(OPTIMIZERS[name], guarded=True, compile=True)
    assert step.compiled.graphs[0].kind == "compiled"
    assert num_denormal(step.optimizer) == 0


@pytest.mark.filterwarnings("ignore:Running eagerly:UserWarning")  # stock
@pytest.mark.parametrize("stock", [False, True], ids=["ours", "stock"])
def test_svi(stock):
    vae = build()
    loss = pyro.infer.Trace_ELBO() if stock else estimators.ELBO()
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam(dict(ADAM)), loss, compile=False)
    for x in batches():
        svi.step(x)
    assert sum(num_denormal(each) for each in svi.optim.optim_objs.values()) == 0


def test_what_is_not_nearly_zero_stays_as_it_is():
    parameter = torch.nn.Parameter(torch.ones(4))
    optimizer = torch.optim.Adam([parameter])
    parameter.grad = torch.ones(4)
    optimizer.step()
    state = optimizer.state[parameter]
    state["exp_avg"].copy_(torch.tensor([1e-39, -1e-39, 1e-20, torch.nan]))
    flush_denormals(optimizer)
    expected = torch.tensor([0.0, 0.0, 1e-20, torch.nan])
    torch.testing.assert_close(state["exp_avg"], expected, rtol=0, atol=0, equal_nan=True)
    assert state["step"] == 1
