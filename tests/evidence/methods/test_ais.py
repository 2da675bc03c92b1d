"""AIS and bidirectional Monte Carlo against exact evidence."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from numpy.testing import assert_allclose

import pyrovae as pv
from pyrovae import likelihoods, nets, posteriors
from pyrovae.compilation import Graph
from pyrovae.evidence import AIS, ImportanceSampling, bdmc
from pyrovae.evidence.methods import annealing
from pyrovae.testing import DiscreteMixture, LinearGaussian, quadrature

HARD = LinearGaussian(latent_dim=3, shift=1.0, stretch=1.5, orthogonal=False)


def exact(oracle, x) -> np.ndarray:
    return oracle.log_prob(x).detach().numpy()


class Hierarchy(LinearGaussian):
    """The same p(x) with z = a + b in two sites, b given a, whose guide is too wide."""

    model = LinearGaussian.layered_model

    def guide(self, x):
        loc = x @ self.gain.T + self.offset
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.36 * loc, 0.6).to_event(1))
            pyro.sample(
                "b", dist.Normal(0.8 * loc + 0.2 * a, 1.5 * self.log_scale.exp()).to_event(1)
            )


@pytest.mark.parametrize(
    ("start", "schedule"), [("prior", "sigmoid"), ("guide", "linear"), ("guide", "adaptive")]
)
def test_unbiased_in_p_of_x(start, schedule):
    x = HARD.sample(200)
    truth = exact(HARD, x)
    method = AIS(12, 8, start=start, schedule=schedule, num_leapfrog=4)
    evidence = pv.log_marginal(HARD.model, HARD.guide, x, method=method)
    ratio = np.exp(evidence.log_marginal.values - truth)
    # The mean of 200 ratios, in units of its own standard error.
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(200)
    assert evidence.mean() < truth.mean()
    assert float(evidence.acceptance.mean()) == pytest.approx(0.65, abs=0.12)


def test_more_temperatures_come_nearer_and_above_importance_sampling():
    x = HARD.sample(100)
    truth = exact(HARD, x).mean()
    means = [
        pv.log_marginal(HARD.model, HARD.guide, x, method=AIS(num, 8, num_leapfrog=4)).mean()
        for num in (1, 5, 20)
    ]
    assert means[0] < means[1] < means[2] < truth
    importance = pv.log_marginal(HARD.model, HARD.guide, x, num_particles=8).mean()
    from_guide = pv.log_marginal(
        HARD.model, HARD.guide, x, method=AIS(20, 8, start="guide", num_leapfrog=4)
    )
    assert importance < from_guide.mean() < truth + 0.05
    variance = from_guide.log_weight_variance.mean()
    single = pv.log_marginal(HARD.model, HARD.guide, x, method=AIS(1, 8, start="guide"))
    assert float(variance) < 0.2 * float(single.log_weight_variance.mean())
    assert "take more temperatures" in repr(single)
    assert "take more temperatures" not in repr(from_guide)


@pytest.mark.parametrize("start", ["prior", "guide"])
def test_one_temperature_is_importance_sampling_from_the_start(start):
    x = HARD.sample(400)
    annealed = pv.log_marginal(HARD.model, HARD.guide, x, method=AIS(1, 64, start=start))

    def prior(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 3, dtype=x.dtype), 1.0).to_event(1))

    plain = pv.log_marginal(
        HARD.model, prior if start == "prior" else HARD.guide, x, num_particles=64
    )
    gap = (annealed.log_marginal - plain.log_marginal).values
    assert abs(gap.mean()) < 4 * gap.std() / 20
    # The same law, not only the same mean: 400 estimates of each.
    assert annealed.log_weight_variance.mean() > 0
    assert float(annealed.ess.mean()) == pytest.approx(float(plain.ess.mean()), rel=0.1)
    # No proposal was made, so none was refused.
    assert annealed.acceptance.isnull().all()
    assert "chains     made no transition" in repr(annealed)


@pytest.mark.parametrize("start", ["prior", "guide"])
def test_hierarchies_of_several_sites(start):
    oracle = Hierarchy()
    x = oracle.sample(60)
    evidence = pv.log_marginal(
        oracle.model, oracle.guide, x, method=AIS(25, 16, start=start, num_leapfrog=5)
    )
    gap = evidence.log_marginal.values - exact(oracle, x)
    assert abs(gap.mean()) < 4 * evidence.monte_carlo_error() + 0.05
    assert gap.std() < 0.5


def test_neural_decoder_against_quadrature():
    torch.manual_seed(0)
    vae = pv.VAE(
        (6,), 2, likelihood=likelihoods.Bernoulli(), encoder=pv.nets.MLP(8), decoder=pv.nets.MLP(8)
    ).double()
    with torch.no_grad():
        for parameter in vae.likelihood.decoder.parameters():
            parameter *= 4  # far from Gaussian posteriors
    x = vae.sample(20)
    truth = quadrature(vae.prior, vae.likelihood, x).numpy()
    evidence = pv.log_marginal(vae.model, vae.guide, x, method=AIS(20, 30, num_leapfrog=5))
    scores = (evidence.debiased - truth) / evidence.standard_error
    assert float(abs(scores).max()) < 4
    assert float(evidence.standard_error.max()) < 0.3


def test_annealing_from_the_prior_needs_no_density_of_the_guide():
    torch.manual_seed(0)
    vae = pv.VAE(
        (4,), 2, likelihood=likelihoods.Gaussian(0.7), posterior=posteriors.Delta()
    ).double()
    x = vae.sample(5)
    evidence = pv.log_marginal(vae.model, vae.guide, x, method=AIS(10, 30, num_leapfrog=4))
    truth = quadrature(vae.prior, vae.likelihood, x).numpy()
    np.testing.assert_allclose(evidence.log_marginal, truth, atol=0.5)
    with pytest.raises(ValueError, match="Delta"):
        pv.log_marginal(vae.model, vae.guide, x, method=AIS(10, start="guide"))


def test_cut_and_company_change_nothing():
    x = HARD.sample(6)
    method = AIS(6, 5, start="guide", schedule="adaptive", num_leapfrog=3)
    before = torch.get_rng_state()
    whole = pv.log_marginal(HARD.model, HARD.guide, x, method=method)
    cut = pv.log_marginal(HARD.model, HARD.guide, x.flip(0), method=method, memory_budget=150_000)
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_allclose(cut.log_marginal[::-1], whole.log_marginal, rtol=1e-8)
    assert all(parameter.grad is None for parameter in HARD.parameters())


@pytest.mark.parametrize("start", ["prior", "guide"])
def test_a_captured_gradient_gives_the_same_chains(monkeypatch, start):
    """In float64, though the parameters are in float32, whose rounding would be 1e-6. The chains
    are short, since HMC magnifies the last digit.
    """
    torch.manual_seed(0)
    vae = pv.VAE(6, latent_dim=2, encoder=nets.MLP(8), decoder=nets.MLP(8))
    x = torch.bernoulli(torch.full((5, 6), 0.5))
    used = []

    def annealed(least):
        monkeypatch.setattr(annealing, "_CAPTURED", least)
        return pv.log_marginal(
            vae.model, vae.guide, x, method=AIS(3, 4, start=start, num_leapfrog=2)
        )

    def recorded(self, *inputs):
        used.append(len(inputs))
        return run(self, *inputs)

    run = Graph.__call__
    monkeypatch.setattr(Graph, "__call__", recorded)
    eager = annealed(math.inf)
    assert not used
    captured = annealed(0)
    assert len(used) > 8
    assert_allclose(captured.log_marginal, eager.log_marginal, rtol=0, atol=1e-9)


def test_refuses_what_it_cannot_move():
    mixture = DiscreteMixture()
    with pytest.raises(ValueError, match="site 'c' is Categorical"):
        pv.log_marginal(mixture.model, mixture.guide, mixture.sample(3), method=AIS(5))

    def model(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(torch.ones_like(x), 1.0))
            pyro.sample("x", dist.Exponential(rate), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.Gamma(torch.ones_like(x), 1.0))

    with pytest.raises(ValueError, match="constrained"):
        pv.log_marginal(model, guide, torch.ones(3), method=AIS(5))


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"num_temperatures": 0}, ValueError),
        ({"num_chains": 1.5}, TypeError),
        ({"start": "posterior"}, ValueError),
        ({"schedule": "cosine"}, ValueError),
        ({"precision": "half"}, ValueError),
        ({"target_acceptance": 1.0}, ValueError),
    ],
)
def test_refuses_bad_settings(settings, error):
    with pytest.raises(error):
        AIS(**settings)


# --- both sides
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "methods",
    [
        [ImportanceSampling(4), ImportanceSampling(64)],
        [AIS(4, 4, num_leapfrog=4), AIS(20, 4, num_leapfrog=4)],
        [AIS(3, 4, start="guide", num_leapfrog=4), AIS(12, 4, start="guide", num_leapfrog=4)],
    ],
    ids=["importance", "prior", "guide"],
)
def test_sandwich_holds_the_truth_and_tightens_with_effort(methods):
    gaps = []
    for method in methods:
        sandwich = bdmc(HARD.model, HARD.guide, num_data=150, method=method)
        truth = exact(HARD, sandwich.data[0])
        for side, name in (
            (truth - sandwich.lower.values, "lower"),
            (sandwich.upper.values - truth, "upper"),
        ):
            # A bound holds in expectation: up to four standard errors of the mean.
            assert side.mean() > -4 * side.std() / math.sqrt(150), name
        assert sandwich.below.bound == "lower"
        assert sandwich.above.bound == "upper"
        gaps.append(float(sandwich.gap.mean()))
    assert 0 < gaps[1] < 0.5 * gaps[0]


@pytest.mark.parametrize("start", ["prior", "guide"])
def test_backwards_is_unbiased_in_one_over_p_of_x(start):
    """The mean of the chains' inverse weights, from exact draws that
    transitions have moved apart.
    """
    oracle = LinearGaussian(
        noise=1.5, shift=0.5, stretch=1.3
    )  # inverse weights of bounded variance
    method, data = AIS(12, 4, start=start, num_leapfrog=4), torch.zeros(1500, 5).double()
    sandwich = bdmc(oracle.model, oracle.guide, num_data=1500, data=data, method=method)
    ratio = np.exp(exact(oracle, sandwich.data[0]) - sandwich.upper.values)
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(1500)
    assert ratio.std() / math.sqrt(1500) < 0.03


def test_simulated_data_are_the_models():
    oracle = LinearGaussian()
    sandwich = bdmc(oracle.model, oracle.guide, num_data=4000, method=ImportanceSampling(1))
    (x,) = sandwich.data
    variance = oracle.weight @ oracle.weight.T + oracle.log_noise.exp() ** 2 * torch.eye(5)
    assert (x.mean(0) - oracle.bias).abs().max() < 4 * (variance.diagonal().max() / 4000).sqrt()
    # Each entry of a covariance of 4,000 draws errs by about sqrt(2 / 4000) of the variances.
    assert (torch.cov(x.T) - variance).abs().max() < 4.5 * math.sqrt(
        2 / 4000
    ) * variance.diagonal().max()
    # With the exact guide both sides are the truth, by the exact draw and by the guide's.
    np.testing.assert_allclose(sandwich.gap, 0, atol=1e-9)


def test_sandwich_of_a_vae_and_of_plain_functions():
    vae = pv.VAE((4,), 2).double()
    sandwich = bdmc(vae.model, vae.guide, num_data=5, method=ImportanceSampling(8))
    assert sandwich.data[0].shape == (5, 4)
    assert set(sandwich.data[0].unique().tolist()) <= {0.0, 1.0}
    assert "5 simulated data" in repr(sandwich)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, math.sqrt(0.5)))

    with pytest.raises(ValueError, match="Pass data="):
        bdmc(model, guide, num_data=3, method=ImportanceSampling(8))
    found = bdmc(model, guide, num_data=3, method=ImportanceSampling(8), data=torch.zeros(10))
    np.testing.assert_allclose(
        found.lower, dist.Normal(0.0, math.sqrt(2)).log_prob(found.data[0]), atol=1e-5
    )
    with pytest.raises(ValueError, match="the arguments given hold"):
        bdmc(model, guide, num_data=30, method=ImportanceSampling(8), data=torch.zeros(10))


def test_sandwich_is_repeatable():
    first, again = (
        bdmc(HARD.model, HARD.guide, num_data=5, method=AIS(3, 4, num_leapfrog=2), seed=4)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.lower, again.lower)
    np.testing.assert_array_equal(first.upper, again.upper)
    other = bdmc(HARD.model, HARD.guide, num_data=5, method=AIS(3, 4, num_leapfrog=2), seed=5)
    assert (first.data[0] != other.data[0]).all()
