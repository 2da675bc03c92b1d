"""Parts of another model, other data or another method are never taken for those of this one."""

import os
import subprocess
import sys
import threading
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.together import environment
from pyro.nn import PyroModule, PyroParam
from torch.distributions.transforms import AffineTransform

import pyrovae as pv
from pyrovae import likelihoods, nets, posteriors, priors
from pyrovae.evidence.identity import identity
from pyrovae.evidence.inspection import inspect

X = torch.rand(7, 4, generator=torch.Generator().manual_seed(0)).round()
LEVEL = 1.0  # a global that the programs read


def name(programs, x=X, method=None, seed=0):
    """The identity, which is the same after an estimate."""
    method, found = method or pv.ImportanceSampling(3), []
    for _ in range(2):
        with (inspection := inspect(*programs, x, seed)).evaluating():
            found.append(identity(inspection, method))
            method.evaluate(inspection)
    assert found[0] == found[1]
    return found[0]


class Settings:
    def __init__(self, scale=1.0, shift=0.0):
        self.scale, self.shift = scale, shift


def programs(
    scale=1.0, *, table=None, options=None, shape=None, transform=None, act=torch.tanh, lock=None
):
    """Plain functions that close over settings of many kinds."""
    table = np.zeros(4) if table is None else table
    options, shape = options or {"shift": 0.0}, shape or Settings()

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1))
            loc = act(z) + torch.as_tensor(table).float() + options["shift"] + shape.shift
            loc = loc if transform is None else transform(loc)
            with lock or threading.Lock():
                noise = dist.Normal(loc, scale * shape.scale * LEVEL)
            pyro.sample("x", noise.to_event(1), obs=x)

    return model, guide


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.8).to_event(1))


def model_with(constant):
    if constant == 2:
        return lambda x: observe(x, 2.0)
    return lambda x: observe(x, 3.0)


def observe(x, scale):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, scale).to_event(1), obs=x)


def vae(**options):
    torch.manual_seed(0)
    small = {"encoder": nets.MLP(5), "decoder": nets.MLP(5), **options}
    return pv.VAE(4, 2, **small).programs


def hooked(factor):
    model, guide = vae()
    model.__self__.likelihood.register_forward_pre_hook(lambda _, args: (factor * args[0],))
    return model, guide


class OwnLayers(PyroModule):
    """A Pyro module whose setting is an attribute of its own."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor
        self.scale = PyroParam(torch.ones(4), dist.constraints.positive)

    def model(self, x):
        settings = Settings(LEVEL, len(X))  # several globals, whose order must not matter
        observe(x, self.factor * self.scale * settings.scale)


def own(factor=1.0):
    layers = OwnLayers(factor)
    return layers.model, guide


CHANGES = {
    "a number closed over": lambda i: programs(1.0 + i),
    "its last digit": lambda i: programs(1.0 + i * 2**-52),
    "an array": lambda i: programs(table=np.full(4, float(i))),
    "an item": lambda i: programs(options={"shift": float(i)}),
    "an attribute": lambda i: programs(shape=Settings(2.0, float(i))),
    "two attributes": lambda i: programs(shape=Settings(*((1.0, 2.0), (2.0, 1.0))[i])),
    "an object of torch": lambda i: programs(transform=AffineTransform(1.0, 2.0 + i)),
    "a function": lambda i: programs(act=(torch.tanh, torch.sin)[i]),
    "code": lambda i: (model_with(2 + i), guide),
    "a bound argument": lambda i: (partial(observe, scale=2.0 + i), guide),
    "a setting of a module": lambda i: own(1.0 + i),
    "a likelihood": lambda i: vae(
        likelihood=(likelihoods.Bernoulli(), likelihoods.ContinuousBernoulli())[i]
    ),
    "a setting of a prior": lambda i: vae(prior=priors.StudentT(df=(3.0, 30.0)[i])),
    "an activation": lambda i: vae(decoder=nets.MLP(5, activation=("relu", "tanh")[i])),
    "a hook": lambda i: hooked(1.0 + i),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_programs_have_another_name(change):
    first, again, other = (name(CHANGES[change](i)) for i in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_global_a_precision_and_a_parameter_count(monkeypatch):
    names = [name(programs())]
    monkeypatch.setitem(globals(), "LEVEL", 2.0)
    names.append(name(programs()))
    double = vae()
    names.append(name(double))
    double[0].__self__.double()
    names.append(name(double))
    with torch.no_grad():
        next(double[0].__self__.parameters()).view(-1)[0].mul_(1 + 2**-50)
    names.append(name(double))
    assert len(set(names)) == 5


def test_pyros_own_parameters_count():
    def model(x):
        observe(x, pyro.param("scale of these programs", torch.ones(4)))

    try:
        first = name((model, guide))
        with torch.no_grad():
            pyro.param("scale of these programs").mul_(2)
        assert name((model, guide)) != first
    finally:
        pyro.clear_param_store()


def test_data_method_and_seed_count_to_the_last_digit():
    double, methods = X.double(), [pv.ImportanceSampling(3, prior_share=s) for s in (0.2, 0.21)]
    methods.append(pv.ImportanceSampling(3, prior_share=0.2 + 2**-54))
    names = [name(programs(), x) for x in (X, double, double + 2**-40)]
    names += [name(programs(), seed=1), *(name(programs(), method=m) for m in methods)]
    assert len(set(names)) == 7


@pytest.mark.parametrize(
    "options",
    [
        {"prior": priors.Vamp(3)},
        {"prior": priors.Flow(num_transforms=1, hidden=(4,))},
        {"posterior": posteriors.Flow(num_transforms=1, hidden=(4,), context=2)},
        {"prior": priors.GaussianMixture(2), "posterior": posteriors.FullRankNormal()},
        {"prior": priors.HypersphericalUniform(), "posterior": posteriors.PowerSpherical()},
        {"likelihood": likelihoods.Gaussian("learned")},
    ],
    ids=str,
)
def test_parts_of_this_package_have_a_name(options):
    assert name(vae(**options)) == name(vae(**options))


def test_what_cannot_be_told_is_refused(tmp_path):
    held = programs(lock=threading.Lock())
    with pytest.raises(ValueError, match=r"'lock' of programs.*lock.*Leave parts out"):
        pv.log_marginal(*held, X, num_particles=3, parts=tmp_path)
    assert not list(tmp_path.iterdir())
    assert len(pv.log_marginal(*held, X, num_particles=3)) == 7


def test_another_process_gives_the_same_name():
    """Whatever the order of sets there, and the mode of the modules here."""
    code = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location({__name__!r}, {__file__!r})
t = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(t)
print(t.name(t.own()), t.name(t.vae()))
"""
    options = {"capture_output": True, "text": True, "check": True}
    seed = 1 + (os.environ.get("PYTHONHASHSEED") == "1")
    environ = environment(PYTHONHASHSEED=seed)
    found = subprocess.run([sys.executable, "-c", code], env=environ, **options).stdout.split()
    training = vae()
    training[0].__self__.train()
    assert found == [name(own()), name(training)]
