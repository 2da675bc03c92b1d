"""Fits in one process: in threads, and one after the other."""

import gc
import threading
import weakref

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints

from pyrovae import VAE, likelihoods, nets
from pyrovae.training import fit

X = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))


def trained(seed):
    torch.manual_seed(seed)
    vae = VAE((5,), 2, likelihood=likelihoods.Gaussian(1.0), encoder=nets.MLP(6),
              decoder=nets.MLP(6))  # fmt: skip
    fit(vae.model, vae.guide, X, epochs=8, batch_size=10, seed=seed, device="cpu", capture=False)
    return vae


def test_fits_in_threads_give_what_they_give_alone(tmp_path):
    """Models are made before: the random state that initialises them belongs to the process."""
    models = []
    for seed in range(3):
        torch.manual_seed(seed)
        models.append(VAE((5,), 2, likelihood=likelihoods.Gaussian(1.0), encoder=nets.MLP(6),
                          decoder=nets.MLP(6)))  # fmt: skip
    errors = []

    def work(vae, seed):
        try:
            fit(vae.model, vae.guide, X, epochs=8, batch_size=10, seed=seed, device="cpu",
                capture=False)  # fmt: skip
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(vae, i)) for i, vae in enumerate(models)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for seed, vae in enumerate(models):
        for mine, other in zip(vae.parameters(), trained(seed).parameters(), strict=True):
            assert torch.equal(mine, other)


def test_a_model_is_gone_after_its_fit():
    """Pyro's store is left as it was found."""
    pyro.clear_param_store()
    pyro.param("mine", torch.ones(2))
    vae = trained(0)
    assert list(pyro.get_param_store().keys()) == ["mine"]
    watched = weakref.ref(vae)
    del vae
    gc.collect()
    assert watched() is None
    pyro.clear_param_store()


def test_parameters_of_the_store_alone_stay_there():
    pyro.clear_param_store()

    def model(x):
        loc = pyro.param("loc", torch.zeros(5))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(loc + z, 1.0).to_event(1), obs=x)

    def guide(x):
        scale = pyro.param("scale", torch.ones(1), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.mean(-1, keepdim=True), scale).to_event(1))

    fit(model, guide, X, epochs=2, device="cpu")
    assert sorted(pyro.get_param_store().keys()) == ["loc", "scale"]
    assert not torch.equal(pyro.param("loc"), torch.zeros(5))
    pyro.clear_param_store()
