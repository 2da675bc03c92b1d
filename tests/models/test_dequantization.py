"""Variational dequantisation against exact masses of cells, and wherever programs are taken."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyrovae as pv
from pyrovae import estimators, likelihoods, nets, posteriors

F64 = torch.float64
LEVELS = 4
LEFT = torch.cartesian_prod(torch.arange(LEVELS), torch.arange(LEVELS)).to(F64)
X = LEFT / (LEVELS - 1)  # every pair of levels
LOC, SCALE = torch.tensor([0.3, 0.6], dtype=F64), torch.tensor([0.2, 0.4], dtype=F64)
WEIGHTS = torch.tensor([0.3, -0.2], dtype=F64)


def density_model(x):
    """A density of two elements without a latent variable."""
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(LOC, SCALE).to_event(1), obs=x)


def no_guide(x):
    pass


def latent_model(x):
    """Elements that depend on one another by z; observed as a view of x."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=F64), 1.0))
        loc = LOC + WEIGHTS * z.unsqueeze(-1)
        pyro.sample("x", dist.Normal(loc, SCALE).to_event(1), obs=x.flatten(1))


def latent_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(((x - LOC) * WEIGHTS).sum(-1), 1.0))


def exact():
    """log of the mass of each pair of cells, without and with z: by distribution functions, and
    for z by Gauss-Hermite quadrature (of 64 points: smooth, so exact to 1e-10).
    """

    def mass(loc):
        normal = dist.Normal(loc, SCALE)
        low, high = (LEFT + shift for shift in (0, 1))
        return (normal.cdf(high / LEVELS) - normal.cdf(low / LEVELS)).prod(-1)

    nodes, weights = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(64))
    mixed = sum(w * mass(LOC + WEIGHTS * z) for z, w in zip(nodes, weights, strict=True))
    return mass(LOC).log(), (mixed / math.sqrt(2 * math.pi)).log()


def make(kind, **options):
    torch.manual_seed(0)
    programs = (density_model, no_guide) if kind == "density" else (latent_model, latent_guide)
    return pv.VariationalDequantization(*programs, 2, LEVELS, **options).double()


TRUTH = dict(zip(("density", "latent"), exact(), strict=True))


@pytest.mark.parametrize("kind", TRUTH)
def test_evidence_is_the_mass_of_the_cells(kind):
    pair, truth = make(kind), TRUTH[kind]
    evidence = pv.log_marginal(pair.model, pair.guide, X, num_particles=20_000)
    found = torch.from_numpy(evidence.log_marginal.values)
    error = torch.from_numpy(evidence.standard_error.values)
    assert (evidence.pareto_k.values < 0.7).all()
    assert ((found - truth).abs() < 5 * error).all()
    assert (error < 0.05).all()
    assert truth.exp().sum() < 1  # the rest lies outside of [0, 1)
    assert evidence.dataset.attrs["data_scale"] == 1
    assert evidence.bits_per_dim == pytest.approx(-found.mean().item() / 2 / math.log(2))


@pytest.mark.parametrize("kind", TRUTH)
def test_the_bound_is_one_and_rises_with_particles(kind):
    pair, truth = make(kind), TRUTH[kind]
    means = []
    torch.manual_seed(1)
    for number in (1, 8, 64):
        bounds = torch.stack(
            [estimators.IWAE(number).bound(pair.model, pair.guide, X) for _ in range(100)]
        )
        means.append(bounds.mean(0))
        slack = 5 * bounds.std(0) / math.sqrt(100)
        assert (means[-1] < truth + slack).all()
    assert means[0].exp().sum() < means[1].exp().sum() < means[2].exp().sum() < 1
    assert (means[2] - truth).abs().max() < 0.3 < (means[0] - truth).abs().max()


@pytest.mark.parametrize("posterior", [posteriors.Flow(), posteriors.DiagonalNormal()], ids=repr)
def test_other_posteriors_of_the_noise(posterior):
    """Normal tails are lighter than those of the truth: the bound is low, and Pareto k says so."""
    pair, truth = make("latent", posterior=posterior), TRUTH["latent"]
    evidence = pv.log_marginal(pair.model, pair.guide, X, num_particles=2000)
    # Not the mean: single weights without a variance lift one datum by some nats.
    assert np.median(evidence.log_marginal.values - truth.numpy()) < -0.1
    assert (evidence.pareto_k.values > 0.7).any()


def test_uniform_noise_is_a_special_case():
    """With m = 0 and s = 1 the noise has no weight of its own: E log p over the cell remains."""
    pair = make("density")
    with torch.no_grad():
        for parameter in pair.posterior.encoder.parameters():
            parameter.zero_()
    torch.manual_seed(2)
    particles = estimators.ELBO(num_particles=4000).particles(pair.model, pair.guide, X)
    site = particles.latents["dequantization"]
    torch.testing.assert_close(particles.log_prior, particles.log_q, rtol=0, atol=1e-12)
    assert abs(torch.sigmoid(site.value).mean() - 0.5) < 0.01
    nodes = (torch.arange(2000, dtype=F64) + 0.5) / 2000  # the midpoint rule: exact to 1e-7
    cells = (LEFT.unsqueeze(-1) + nodes) / LEVELS
    log_p = dist.Normal(LOC.unsqueeze(-1), SCALE.unsqueeze(-1)).log_prob(cells).mean(-1).sum(-1)
    expected = log_p - 2 * math.log(LEVELS)
    error = particles.log_weights.std(0) / math.sqrt(4000)
    assert ((particles.log_weights.mean(0) - expected).abs() < 5 * error).all()


def test_training_learns_the_noise():
    pair = make("density")
    uniform = estimators.ELBO(2000).bound(pair.model, pair.guide, X).mean()
    history = pv.fit(pair.model, pair.guide, X, epochs=60, batch_size=16, lr=5e-2)
    learned = estimators.ELBO(2000).bound(pair.model, pair.guide, X).mean()
    gap = TRUTH["density"].mean() - uniform
    assert learned > uniform + 0.5 * gap
    assert history["train_bound"][-1] > history["train_bound"][0]


def make_vae():
    torch.manual_seed(0)
    likelihood = likelihoods.Gaussian("learned")
    sizes = {"encoder": nets.MLP(8), "decoder": nets.MLP(8)}
    return pv.VAE((2, 3), 2, likelihood=likelihood, **sizes)


def test_a_vae_is_trained_and_judged_everywhere():
    vae = make_vae()
    pair = pv.VariationalDequantization(vae.model, vae.guide, (2, 3), 5, encoder=nets.MLP(8))
    x = torch.randint(5, (20, 2, 3)).float() / 4
    before = [p.clone() for p in pair.parameters()]
    pv.fit(pair.model, pair.guide, x, epochs=2, batch_size=10, valid=x, compile=False)
    assert not any(torch.equal(a, b) for a, b in zip(before, pair.parameters(), strict=True))
    svi = pyro.infer.SVI(
        pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-3}), pyro.infer.Trace_ELBO()
    )
    assert math.isfinite(svi.step(x))
    table = pv.compare_estimators(
        pair.model, pair.guide, x, {"DReG": estimators.DReG(4)}, num_replicates=4
    )
    assert "DReG" in repr(table)
    method = pv.AIS(num_temperatures=8, num_chains=4)
    assert pv.log_marginal(pair.model, pair.guide, x, method=method).bits_per_dim > 0
    seen = torch.ones_like(x, dtype=torch.bool)
    whole = pv.log_marginal(pair.model, pair.guide, x, num_particles=200).mean()
    part = pv.log_marginal(
        *pv.observe_part(pair.model, pair.guide), (x, seen), num_particles=200
    ).mean()
    assert part == pytest.approx(whole, abs=0.3)  # other random streams


def test_a_vae_in_training_mode_is_found_within_the_pair():
    vae = make_vae()
    pair = pv.VariationalDequantization(vae.model, vae.guide, (2, 3), 5)
    pair.eval()
    assert not vae.training
    assert set(vae.parameters()) < set(pair.parameters())


def test_what_cannot_be_dequantised_is_refused():
    vae = make_vae()
    pair = pv.VariationalDequantization(vae.model, vae.guide, (2, 3), 5)
    x = torch.zeros(4, 2, 3)
    with pytest.raises(ValueError, match=r"levels 0, 1/4, ..., 1, found 0.3"):
        pv.fit(pair.model, pair.guide, x + 0.3, epochs=1)
    with pytest.raises(ValueError, match=r"shape \(B, 2, 3\), found torch.float32 of shape"):
        pair.model(x[0])
    with pytest.raises(ValueError, match="density on all of R"):
        pv.VariationalDequantization(vae.model, vae.guide, (2, 3), 5, posterior=posteriors.Delta())
    with pytest.raises(ValueError, match="p\\(x\\) is discrete"):
        pv.log_marginal(pair.model, pair.guide, x, num_particles=2, data_scale=1 / 5)
    with pytest.raises(NotImplementedError, match="cannot be drawn given their noise"):
        pv.bdmc(pair.model, pair.guide, num_data=2, data=x)

    def changed(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0).expand([6]).to_event(1), obs=2 * x.flatten(1))

    other = pv.VariationalDequantization(changed, no_guide, (2, 3), 5)
    with pytest.raises(ValueError, match="observes no view of its data"):
        pv.log_marginal(other.model, other.guide, x, num_particles=2)


def test_no_draw_of_the_noise_is_infinite(monkeypatch):
    """Single precision draws a uniform number of exactly zero once in 17 million."""
    pair = pv.VariationalDequantization(density_model, no_guide, 2, LEVELS)
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda self: self.zero_())
    particles = estimators.ELBO(3).particles(pair.model, pair.guide, torch.zeros(2, 2))
    assert torch.isfinite(particles.latents["dequantization"].value).all()
    assert torch.isfinite(particles.log_weights).all()


def test_the_extremes_of_the_noise_stay_within_their_cell():
    class Far(nn.Module):
        def forward(self, x):
            return torch.cat([torch.full_like(x, 200.0), x], -1)

    pair = pv.VariationalDequantization(density_model, no_guide, 2, LEVELS, encoder=Far())
    bound = estimators.ELBO(10).bound(pair.model, pair.guide, torch.ones(3, 2))
    assert torch.isfinite(bound).all()
