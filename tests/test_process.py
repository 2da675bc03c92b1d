"""What is of the process: Pyro's handlers and parameter store, threads, and forks."""

import gc
import os
import subprocess
import sys
import threading
import warnings
import weakref

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO

import pyrovae as pv
from pyrovae import nets


def make(seed=0):
    torch.manual_seed(seed)
    return pv.VAE((6,), 2, encoder=nets.MLP(8), decoder=nets.MLP(8))


def data(num=48):
    return torch.rand(num, 6, generator=torch.Generator().manual_seed(2)).round()


def trained(seed=0, **options):
    vae = make(seed)
    vae.fit(
        data(), **{"epochs": 2, "batch_size": 16, "progress": False, "capture": False, **options}
    )
    return vae


def weights(vae):
    return torch.cat([p.detach().flatten() for p in vae.parameters()])


@pytest.fixture(autouse=True)
def _empty_store():
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


WORK = {
    "fit": lambda vae: vae.fit(data(), epochs=1, progress=False, capture=False),
    "captured fit": lambda vae: vae.fit(data(16), epochs=1, progress=False),
    "log_marginal": lambda vae: vae.log_marginal(data(4), num_particles=3),
    "bdmc": lambda vae: pv.bdmc(
        vae.model, vae.guide, num_data=3, method=pv.ImportanceSampling(3)
    ),
    "compare_estimators": lambda vae: pv.compare_estimators(
        vae.model, vae.guide, data(4), {"ELBO": pv.estimators.ELBO()}, num_replicates=4,
        reference_particles=10, gradient_reference=False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("work", [*WORK])
def test_the_store_is_left_as_it_was_found_and_models_are_freed(work):
    pyro.param("mine", torch.ones(2))
    vae = make()
    WORK[work](vae)
    assert set(pyro.get_param_store().keys()) == {"mine"}
    seen = weakref.ref(vae), weakref.ref(next(vae.parameters()))
    del vae
    gc.collect()
    assert [ref() for ref in seen] == [None, None]


@pytest.mark.parametrize("kind", [SVI, pv.SVI])
def test_the_store_forgets_a_model_that_is_gone(kind):
    """An SVI needs the names of parameters as long as the model is there."""
    loss = Trace_ELBO() if kind is SVI else pv.estimators.ELBO()
    vae = make()
    svi = kind(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), loss)
    svi.step(data(8))
    assert len(pyro.get_param_store()) == len(list(vae.parameters()))
    parameter = weakref.ref(next(vae.parameters()))
    del vae, svi
    gc.collect()
    assert len(pyro.get_param_store()) == 0
    assert parameter() is None


def test_parameters_that_the_store_alone_holds_stay():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            loc = pyro.param("loc", torch.zeros(6))
            pyro.sample("x", dist.Normal(loc + z[:, None], 1.0).to_event(1), obs=x)

    def guide(x):
        shift = pyro.param("shift", torch.nn.Parameter(torch.zeros(())))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(shift.expand(len(x)), 1.0))

    pv.fit(model, guide, data(), epochs=2, batch_size=16, progress=False, capture=False)
    assert set(pyro.get_param_store().keys()) == {"loc", "shift"}
    assert pyro.param("loc").abs().min() > 0


def test_a_module_may_have_two_names_in_the_store():
    """A guide of one's own names the network that the model shows as well, under another name."""
    vae, same = make(), make()

    def guide(x):
        pyro.module("mine", vae)
        with pyro.plate("data", len(x)):
            return pyro.sample("z", vae.encode(x))

    options = {"epochs": 2, "batch_size": 16, "progress": False, "capture": False}
    pv.fit(vae.model, guide, data(), **options)
    same.fit(data(), **options)
    assert torch.equal(weights(vae), weights(same))
    store = pyro.get_param_store()
    assert not store
    pyro.module("mine", vae)  # a name that was there before stays one
    vae.fit(data(), **options)
    assert [store.param_name(p) for p in vae.parameters()] == list(store.keys())


def test_two_threads_take_turns():
    """Each result is that of a fit by itself, and the one that waits is told so."""
    expected = [weights(trained(seed)) for seed in (0, 1)]
    found, told = {}, []
    begun = threading.Event()

    def other():
        begun.wait(60)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            vae = models[1]
            vae.fit(data(), epochs=2, batch_size=16, progress=False, capture=False)
            told.extend(str(w.message) for w in caught)
        found[1] = weights(vae)

    models = [make(0), make(1)]
    thread = threading.Thread(target=other)
    thread.start()

    def wait_for_the_other(row):
        begun.set()
        if row["epoch"] == 1:
            thread.join(0.5)  # it has to wait, or it would end meanwhile
            assert thread.is_alive()

    models[0].fit(
        data(), epochs=2, batch_size=16, progress=False, capture=False, callback=wait_for_the_other
    )
    thread.join(60)
    assert torch.equal(weights(models[0]), expected[0])
    assert torch.equal(found[1], expected[1])
    assert any("Another thread" in text for text in told)


def test_a_fit_may_evaluate_in_its_callback():
    vae, seen = make(), []
    look = lambda row: seen.append(vae.log_marginal(data(3), num_particles=2).mean())  # noqa: E731
    vae.fit(data(), epochs=2, progress=False, capture=False, callback=look)
    assert len(seen) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_fit_after_a_fork_gives_the_same():
    """In a process of its own, with two threads: those of the parent do not survive a fork."""
    code = """
import os, sys, warnings, torch
sys.path.insert(0, sys.argv[1])
import test_process as t
torch.set_num_threads(2)
expected = t.weights(t.trained())
child = os.fork()
if child == 0:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = t.weights(t.trained())
    told = any("forked" in str(w.message) for w in caught)
    os._exit(0 if told and torch.allclose(found, expected, atol=1e-5) else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    command = [sys.executable, "-c", code, os.path.dirname(__file__)]
    assert subprocess.run(command, timeout=120, check=False).returncode == 0
