"""Scoring particles by a captured graph gives the weights of the programs."""

from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyrovae import VAE, ImportanceSampling, log_marginal, nets, posteriors
from pyrovae.evidence.inspection import inspect
from pyrovae.evidence.tiles import CACHE, Tiles
from pyrovae.testing import DiscreteMixture, LinearGaussian


def inspected(model, guide, x, nesting=1):
    return inspect(model, guide, x, max_plate_nesting=nesting)


def owners():
    torch.manual_seed(0)
    vae = VAE(6, 2, encoder=nets.MLP(8), decoder=nets.MLP(8)).double()
    full = VAE(
        6, 2, posterior=posteriors.FullRankNormal(), encoder=nets.MLP(8), decoder=nets.MLP(8)
    ).double()
    binary = torch.bernoulli(torch.full((5, 6), 0.4, dtype=torch.float64))
    oracle, mixture = LinearGaussian(shift=0.4), DiscreteMixture()
    return [
        pytest.param(oracle, oracle.sample(5), id="linear-gaussian"),
        pytest.param(mixture, mixture.sample(5), id="discrete"),
        pytest.param(vae, binary, id="vae"),
        pytest.param(full, binary, id="full-rank"),
    ]


def tiles_of(inspection, num_data, num_particles, bytes_per_particle=1):
    shape = num_data, num_particles
    return Tiles(
        inspection.model, shape, bytes_per_particle, inspection.device, compile=False, total=1000
    )


@pytest.mark.parametrize(("owner", "x"), owners())
@pytest.mark.parametrize(
    ("num_data", "particles_in_cache"), [(5, 100), (9, 100), (5, 3)], ids=["exact", "wide", "small"]
)
def test_graph_and_programs_weigh_alike(owner, x, num_data, particles_in_cache):
    inspection = inspected(owner.model, owner.guide, x)
    with inspection.evaluating():
        sampler = inspection.sampler().select(slice(0, 5))
        tiles = tiles_of(inspection, num_data, 7, CACHE // (num_data * particles_in_cache))
        for start in (0, 128):
            expected = sampler.draw(7, start).log_weights
            found = replace(sampler, scorer=tiles).log_weights(7, start)
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        assert len(tiles.graphs) == 1
        assert tiles.particles == min(7, particles_in_cache)


def test_plates_between_particles_and_data():
    def model(x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("view", 3, dim=-2):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x.T)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("view", 3, dim=-2):
            pyro.sample(
                "z", dist.Normal(0.3 * x.T.unsqueeze(-1).expand(3, len(x), 2), 0.7).to_event(1)
            )

    inspection = inspected(model, guide, torch.randn(5, 3, dtype=torch.float64), nesting=2)
    with inspection.evaluating():
        sampler = inspection.sampler().select(slice(0, 5))
        expected = sampler.draw(7).log_weights
        tiles = tiles_of(inspection, 6, 4)
        found = replace(sampler, scorer=tiles).log_weights(7)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert len(tiles.graphs) == 1


def test_few_data_are_not_padded_to_a_wide_tile():
    oracle = LinearGaussian(shift=0.4)
    inspection = inspected(oracle.model, oracle.guide, oracle.sample(4))
    tiles = tiles_of(inspection, 9, 7)
    assert [n for n in range(12) if tiles.serves(n)] == [5, 6, 7, 8, 9]
    with inspection.evaluating():
        sampler = replace(inspection.sampler(), scorer=tiles).select(slice(0, 4))
        assert torch.equal(sampler.log_weights(7), sampler.draw(7).log_weights)
    assert not tiles.graphs


def test_a_model_with_draws_of_its_own_keeps_the_streams():
    oracle = LinearGaussian(shift=0.4)
    x = oracle.sample(4)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            noise = 0.1 * torch.randn_like(z)
            pyro.sample("x", dist.Normal((z + noise) @ oracle.weight.T, 1.0).to_event(1), obs=x)

    inspection = inspected(model, oracle.guide, x)
    with inspection.evaluating():
        sampler = inspection.sampler().select(slice(0, 4))
        expected = sampler.draw(9).log_weights
        sampler = replace(sampler, scorer=tiles_of(inspection, 4, 9))
        assert torch.equal(sampler.log_weights(9), expected)


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
