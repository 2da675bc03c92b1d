"""Scoring particles by a captured graph gives the weights of the programs."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyrovae import VAE, ImportanceSampling, log_marginal, nets
from pyrovae.engine.graphs import Engine
from pyrovae.evidence.problem import prepare
from pyrovae.testing import DiscreteMixture, LinearGaussian


def problem_of(model, guide, x):
    return prepare(
        model, guide, x, seed=0, memory_budget=None, device=None, max_plate_nesting=1, progress=False
    )


def owners():
    torch.manual_seed(0)
    vae = VAE(6, 2, encoder=nets.MLP(8), decoder=nets.MLP(8)).double()
    oracle, mixture = LinearGaussian(shift=0.4), DiscreteMixture()
    return [
        pytest.param(oracle, oracle.sample(5), id="linear-gaussian"),
        pytest.param(mixture, mixture.sample(5), id="discrete"),
        pytest.param(vae, torch.bernoulli(torch.full((5, 6), 0.4, dtype=torch.float64)), id="vae"),
    ]


@pytest.mark.parametrize(("owner", "x"), owners())
def test_graph_and_programs_weigh_alike(owner, x):
    problem = problem_of(owner.model, owner.guide, x)
    with problem.session():
        encoded = problem.encode(slice(0, 5))
        problem.engine = Engine(problem.model, compile=False)
        for start in (0, 128):
            expected = encoded.draw(7, start).log_weights
            torch.testing.assert_close(encoded.log_weights(7, start), expected, rtol=1e-12, atol=1e-12)
        assert len(problem.engine.graphs) == 1


def test_a_model_with_draws_of_its_own_keeps_the_streams():
    oracle = LinearGaussian(shift=0.4)
    x = oracle.sample(4)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            noise = 0.1 * torch.randn_like(z)
            pyro.sample("x", dist.Normal((z + noise) @ oracle.weight.T, 1.0).to_event(1), obs=x)

    problem = problem_of(model, oracle.guide, x)
    with problem.session():
        encoded = problem.encode(slice(0, 4))
        expected = encoded.draw(9).log_weights
        problem.engine = Engine(problem.model, compile=False)
        assert torch.equal(encoded.log_weights(9), expected)


@pytest.mark.slow
def test_compiled_evidence_agrees_to_rounding():
    oracle = LinearGaussian(shift=0.4)
    x = oracle.sample(6)
    found = [
        log_marginal(
            oracle.model, oracle.guide, x, method=ImportanceSampling(300, compile=compile)
        ).log_marginal
        for compile in (False, True)
    ]
    torch.testing.assert_close(*(torch.as_tensor(f.values) for f in found), rtol=1e-10, atol=1e-10)
