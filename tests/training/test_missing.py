"""Training with missing values: for every likelihood, hidden values change nothing."""

import inspect

import pytest
import torch

import pyrovae as pv
from pyrovae import estimators, likelihoods, nets

SHAPE, SIZE = (6,), 24


def unit():
    return torch.rand(SIZE, *SHAPE).clamp(1e-3, 1 - 1e-3)


def binary():
    return unit().round()


def greys():
    return torch.randint(4, (SIZE, *SHAPE)) / 3


def reals():
    return torch.randn(SIZE, *SHAPE)


def numbers():
    return torch.poisson(torch.full((SIZE, *SHAPE), 3.0))


# Each with draws of its kind of data.
LIKELIHOODS = {
    "Bernoulli": (likelihoods.Bernoulli(), binary),
    "ContinuousBernoulli": (likelihoods.ContinuousBernoulli(), unit),
    "Beta": (likelihoods.Beta(), unit),
    "Gaussian": (likelihoods.Gaussian("decoder"), reals),
    "Laplace": (likelihoods.Laplace("learned"), reals),
    "StudentT": (likelihoods.StudentT(), reals),
    "LogNormal": (likelihoods.LogNormal(), unit),
    "Gamma": (likelihoods.Gamma(), unit),
    "Columns": (likelihoods.Columns({name: likelihoods.Poisson() for name in "abcdef"}), numbers),
    "Categorical": (likelihoods.Categorical(num_levels=4), greys),
    "DiscretizedLogistic": (likelihoods.DiscretizedLogistic(num_levels=4), greys),
    "Poisson": (likelihoods.Poisson(), numbers),
    "NegativeBinomial": (likelihoods.NegativeBinomial(), numbers),
    "ZeroInflatedNegativeBinomial": (likelihoods.ZeroInflatedNegativeBinomial(), numbers),
}


def test_every_likelihood_is_here():
    classes = {
        name
        for name in likelihoods.__all__
        if inspect.isclass(getattr(likelihoods, name)) and name != "Likelihood"
    }
    assert classes == {*LIKELIHOODS, "DiscretizedLogisticMixture"}  # which is refused below


def pair(likelihood):
    torch.manual_seed(0)
    vae = pv.VAE(SHAPE, 2, likelihood=likelihood, encoder=nets.MLP(8), decoder=nets.MLP(8))
    return vae, pv.observe_part(vae.model, vae.guide)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_hidden_values_change_neither_training_nor_comparison(name):
    likelihood, draw = LIKELIHOODS[name]
    torch.manual_seed(1)
    x, other, mask = draw(), draw(), torch.rand(SIZE, *SHAPE) < 0.7
    weights, histories, tables = [], [], []
    for data in (x, torch.where(mask, x, other)):
        vae, (model, guide) = pair(likelihood)
        history = pv.fit(model, guide, (data, mask), valid=(data, mask), epochs=2, batch_size=12)
        histories.append((history["train_bound"].tolist(), history["valid_bound"].tolist()))
        weights.append(torch.cat([p.detach().flatten() for p in vae.parameters()]))
        table = pv.compare_estimators(
            model, guide, (data[:4], mask[:4]), {"ELBO": estimators.ELBO()},
            num_replicates=4, reference=0.0, gradient_reference=False,
        )  # fmt: skip
        tables.append(float(table.dataset["bound"].sel(estimator="ELBO")))
    assert histories[0] == histories[1]
    assert torch.equal(weights[0], weights[1])
    assert tables[0] == tables[1]
    assert not torch.equal(
        weights[0], torch.cat([p.flatten() for p in pair(likelihood)[0].parameters()])
    )


@pytest.mark.parametrize(
    "likelihood",
    [
        likelihoods.Gaussian("optimal"),
        likelihoods.NegativeBinomial(exposure="total"),
        likelihoods.DiscretizedLogisticMixture(2, num_levels=4),
    ],
    ids=repr,
)
def test_likelihoods_that_mix_elements_are_refused(likelihood):
    """Hidden values would reach the density of the others."""
    _, (model, guide) = pair(likelihood)
    x, mask = binary(), torch.ones(SIZE, *SHAPE, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"factori"):
        pv.fit(model, guide, (x, mask), epochs=1)
