"""What a likelihood says of its data: their support, whether they are discrete, and numbers kept
exactly.
"""

import math

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import pyrovae as pv
from pyrovae import likelihoods, nets

F64 = torch.float64
# Each with a datum inside its support and values that are not.
ROWS = [
    (likelihoods.Bernoulli(), [0.0, 1.0], [0.5, -1.0]),
    (likelihoods.ContinuousBernoulli(), [0.0, 1.0], [-1e-6, 1.01]),
    (likelihoods.Beta(), [1e-6, 0.999], [0.0, 1.0]),
    (likelihoods.Categorical(5), [0.0, 0.75], [0.3, 1.25]),
    (likelihoods.DiscretizedLogistic(), [0.0, 7 / 255], [0.5 / 255, -1 / 255]),
    (likelihoods.DiscretizedLogisticMixture(), [1.0, 7 / 255], [0.5 / 255, 256 / 255]),
    (likelihoods.Gaussian(), [-1e30, 3.0], []),
    (likelihoods.Laplace(), [-1e30, 3.0], []),
    (likelihoods.StudentT(), [-1e30, 3.0], []),
    (likelihoods.LogNormal(), [1e-30, 3.0], [0.0, -1.0]),
    (likelihoods.Gamma(), [1e-30, 3.0], [0.0, -1.0]),
    (
        likelihoods.Columns({"a": likelihoods.Gamma(), "b": likelihoods.Poisson()}),
        [2.0, 3.0],
        [-1.0, 0.5],
    ),
    (likelihoods.Poisson(), [0.0, 1e6], [0.5, -1.0]),
    (likelihoods.NegativeBinomial(), [0.0, 1e6], [0.5, -1.0]),
    (likelihoods.ZeroInflatedNegativeBinomial(), [0.0, 1e6], [0.5, -1.0]),
]
rows = pytest.mark.parametrize(
    ("likelihood", "inside", "outside"), ROWS, ids=[repr(r[0]) for r in ROWS]
)


def test_every_likelihood_has_a_row():
    assert {type(row[0]).__name__ for row in ROWS} == set(likelihoods.__all__) - {"Likelihood"}


@rows
def test_support_is_told_for_each_datum(likelihood, inside, outside):
    outside = [*outside, math.nan, math.inf, -math.inf]
    data = torch.tensor([inside] + [[inside[0], value] for value in outside])
    expected = [True] + [False] * len(outside)
    assert likelihood.in_support(data).tolist() == expected
    assert likelihood.in_support(data.reshape(-1, 1, 2)).tolist() == expected
    # Traced on other values, so that no decision can have been taken from them.
    graph = make_fx(lambda x: likelihood.in_support(x))(torch.zeros_like(data))
    assert graph(data).tolist() == expected
    likelihood.check(data[:1])
    for i in range(1, len(data)):
        with pytest.raises(ValueError, match=r"found .* among the data"):
            likelihood.check(data[i : i + 1])


@rows
def test_bits_per_dimension_take_a_scale_for_densities_only(likelihood, inside, outside):
    """Of probabilities, 5.25 bits became 9.25 by a data_scale of 1/16."""
    shape = (2,) if len(inside) == 2 else (1,)
    vae = pv.VAE(shape, 1, likelihood=likelihood, encoder=nets.MLP(2), decoder=nets.MLP(2))
    x = torch.tensor([inside] * 2).clamp(min=-3)
    assert vae.likelihood(torch.zeros(2, 1)).support.is_discrete == likelihood.discrete
    if likelihood.discrete:
        with pytest.raises(ValueError, match="data_scale"):
            pv.log_marginal(vae.model, vae.guide, x, num_particles=30, data_scale=1 / 16)
    else:
        pv.log_marginal(vae.model, vae.guide, x, num_particles=30, data_scale=1 / 16)


@pytest.mark.parametrize(
    ("likelihood", "number"),
    [
        (likelihoods.Gaussian(0.1), lambda p: p.base_dist.scale),
        (likelihoods.Laplace(0.1), lambda p: p.base_dist.scale),
        (likelihoods.StudentT(0.1, 0.1), lambda p: p.base_dist.scale),
        (likelihoods.StudentT(0.1, 0.1), lambda p: p.base_dist.df),
        (likelihoods.NegativeBinomial(10.0), lambda p: p.base_dist.theta),
    ],
)
def test_fixed_numbers_are_exact_in_double_precision(likelihood, number):
    vae = pv.VAE((2,), 1, likelihood=likelihood, encoder=nets.MLP(2), decoder=nets.MLP(2))
    z = torch.zeros(1, 1)
    assert number(vae.likelihood(z)).item() == torch.tensor(0.1).item()
    for _ in range(2):
        assert number(vae.double().likelihood(z.double())).item() == 0.1
        vae.float()
