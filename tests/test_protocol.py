"""Promises that hold for the package as a whole."""

import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import pyrovae as pv
from pyrovae import estimators, likelihoods, nets, posteriors, priors, schedules

ROOT = Path(pv.__file__).parent

HEAVY = {
    "matplotlib",
    "torchvision",
    "sklearn",
    "arviz_base",
    "arviz_stats",
    "arviz_plots",
    "zuko",
    "xarray",
}


def modules():
    return [
        info.name
        for info in pkgutil.walk_packages([str(ROOT)], "pyrovae.")
        if not info.name.endswith("__main__")
    ]


def run(code):
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_has_no_effects():
    """Every module imported, and nothing global has moved: dtype, random state, validation,
    threads, store.
    """
    code = f"""
import torch, pyro, torch.distributions as td
def state():
    return (torch.get_default_dtype(), torch.get_rng_state().sum().item(),
            td.Distribution._validate_args, torch.get_num_threads(), torch.is_grad_enabled(),
            len(pyro.get_param_store()), pyro.settings.get(),
            td.Independent.__init__, td.TransformedDistribution.__init__, td.Distribution.__init__,
            td.Distribution.__repr__, torch.backends.mkldnn.enabled)
before = state()
import importlib
for name in {modules()!r}:
    importlib.import_module(name)
assert state() == before, (before, state())
"""
    run(code)


def test_package_import_is_light():
    assert run("import sys, pyrovae; print('torch' in sys.modules)").strip() == "False"


def test_heavy_packages_wait_until_they_are_used():
    loaded = run(
        "import sys, pyrovae as pv; pv.VAE; pv.fit; pv.estimators; print(*sys.modules)"
    ).split()
    assert not HEAVY & {name.split(".")[0] for name in loaded}


@pytest.mark.parametrize(
    "module", [priors, likelihoods, posteriors, estimators, nets, schedules, pv]
)
def test_all_names_exist_and_are_documented(module):
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.ismodule(thing):
            continue
        assert thing.__doc__, f"{name} has no docstring"
        assert len(thing.__doc__.split()) > 5, f"{name} says too little"


def is_abstract(thing):
    return any(getattr(getattr(thing, name), "__isabstractmethod__", False) for name in dir(thing))


@pytest.mark.parametrize("module", [priors, likelihoods, posteriors, estimators])
def test_every_variant_is_exported_once(module):
    base = {
        priors: priors.Prior,
        likelihoods: likelihoods.Likelihood,
        posteriors: posteriors.Posterior,
        estimators: estimators.Estimator,
    }[module]
    here = {
        name
        for info in pkgutil.walk_packages(module.__path__, module.__name__ + ".")
        for name, thing in vars(__import__(info.name, fromlist=["_"])).items()
        if inspect.isclass(thing)
        and issubclass(thing, base)
        and thing.__module__ == info.name
        and name[0] != "_"
        and not is_abstract(thing)
    }
    assert here <= set(module.__all__)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'VEA'"):
        _ = pv.VEA


def test_every_public_name_of_the_package_resolves_alone():
    """In a fresh process each, as far as it matters: names of functions never
    give way to modules.
    """
    code = "import pyrovae as pv; from pyrovae import training, compare, evidence\n"
    code += "\n".join(f"assert pv.{name} is not None" for name in pv.__all__)
    run(code + "\nassert callable(pv.fit) and callable(pv.compare_models) and callable(pv.SVI)")


def test_dir_lists_the_public_names():
    assert set(pv.__all__) <= set(dir(pv))
