"""The ELBO's parts, against their closed forms."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from pyrovae.evidence import ImportanceSampling, rate_distortion, where_the_nats_go
from pyrovae.testing import DiscreteMixture, LinearGaussian


def guide_of(oracle, x):
    return Independent(Normal(x @ oracle.gain.T + oracle.offset, oracle.log_scale.exp()), 1)


def test_parts_are_their_closed_forms():
    oracle = LinearGaussian(latent_dim=3, shift=0.8, stretch=1.2)
    x = oracle.sample(200)
    nats = where_the_nats_go(
        oracle.model, oracle.guide, x, num_particles=2000, method=ImportanceSampling(500)
    )
    with torch.no_grad():
        q = guide_of(oracle, x)
        kl = (
            kl_divergence(q, Independent(Normal(torch.zeros(200, 3), torch.ones(200, 3)), 1))
            .double()
            .numpy()
        )
        elbo = (oracle.log_prob(x) - oracle.kl_to_posterior(x)).numpy()
    # 2,000 draws of terms that vary by a few nats.
    np.testing.assert_allclose(nats.kl, kl, atol=0.3)
    assert nats.mean("kl") == pytest.approx(kl.mean(), abs=0.02)
    assert nats.mean("elbo") == pytest.approx(elbo.mean(), abs=0.02)
    np.testing.assert_allclose(nats.elbo, nats.reconstruction - nats.kl, atol=1e-10)
    np.testing.assert_allclose(nats.kl, nats.mutual_information + nats.marginal_kl, atol=1e-10)
    assert nats.mean("inference_gap") == pytest.approx(
        oracle.kl_to_posterior(x).mean().item(), abs=0.03
    )


def test_mutual_information_of_a_gaussian_channel():
    """For x from the model and the exact guide, I(x; z) = log det(I + W'W / s^2) / 2, and q(z) is
    the prior.
    """
    oracle = LinearGaussian(latent_dim=2, noise=1.0)
    x = oracle.sample(1500)
    nats = where_the_nats_go(oracle.model, oracle.guide, x, num_particles=64)
    precision = torch.eye(2) + (oracle.weight.T @ oracle.weight).detach().float()
    expected = 0.5 * torch.logdet(precision).item()
    # 1,500 data in place of all: q(z) is a mixture of as many, its marginal KL a little above zero.
    assert nats.mean("mutual_information") == pytest.approx(
        expected, abs=4 * nats.error("mutual_information") + 0.01
    )
    assert -4 * nats.error("marginal_kl") < nats.mean("marginal_kl") < 0.1


def test_information_is_at_most_the_log_of_the_number_of_data():
    oracle = LinearGaussian(noise=0.01)
    x = oracle.sample(10)
    nats = where_the_nats_go(oracle.model, oracle.guide, x)
    np.testing.assert_allclose(nats.mutual_information, math.log(10), atol=1e-3)  # codes far apart
    cut = where_the_nats_go(oracle.model, oracle.guide, x, memory_budget=1000)
    np.testing.assert_allclose(cut.mutual_information, nats.mutual_information, rtol=1e-9)
    np.testing.assert_allclose(cut.kl, nats.kl, rtol=1e-9)


def test_active_units_are_those_the_decoder_uses():
    oracle = LinearGaussian(latent_dim=4)
    with torch.no_grad():
        oracle.weight[:, :2] = 0
        precision = (
            torch.eye(4).double() + oracle.weight.T @ oracle.weight / oracle.log_noise.exp() ** 2
        )
        oracle.gain.copy_(
            torch.linalg.solve(precision, oracle.weight.T) / oracle.log_noise.exp() ** 2
        )
        oracle.offset.copy_(-oracle.gain @ oracle.bias)
        oracle.log_scale.copy_(precision.diagonal().rsqrt().log())
    x = oracle.sample(300)
    nats = where_the_nats_go(oracle.model, oracle.guide, x, num_particles=1000)
    assert nats.active_units == 2
    assert "2 of 4 latent elements active" in repr(nats)
    means = (x @ oracle.gain.T + oracle.offset).detach().var(0, correction=0).numpy()
    np.testing.assert_allclose(nats.activity[2:], means[2:], rtol=0.1)


def test_inference_gap_splits_into_amortisation_and_approximation():
    """A spoiled diagonal guide of correlated posteriors: both parts are known."""
    oracle = LinearGaussian(latent_dim=4, noise=1.0, orthogonal=False, shift=1.0, stretch=0.7)
    best = LinearGaussian(
        latent_dim=4, noise=1.0, orthogonal=False
    )  # the best diagonal Gaussian in KL(q || p)
    x = oracle.sample(60)
    nats = where_the_nats_go(
        oracle.model,
        oracle.guide,
        x,
        num_particles=500,
        method=ImportanceSampling(5000, refine_steps=150),
    )
    approximation = best.kl_to_posterior(x).mean().item()
    amortisation = oracle.kl_to_posterior(x).mean().item() - approximation
    assert approximation > 0.1
    # ELBOs of 64 draws for each of 60 data, whose terms vary by a nat or two.
    assert nats.mean("amortization_gap") == pytest.approx(amortisation, abs=0.12)
    assert nats.mean("approximation_gap") == pytest.approx(approximation, abs=0.12)
    np.testing.assert_allclose(
        nats.inference_gap, nats.amortization_gap + nats.approximation_gap, atol=1e-10
    )


def test_discrete_sites_have_information_too():
    oracle = DiscreteMixture(exact_guide=True)
    x = oracle.sample(400)
    nats = where_the_nats_go(oracle.model, oracle.guide, x, num_particles=400)
    with torch.no_grad():
        log_q = oracle.log_guide(x)  # (C, B)
        marginal = (log_q.logsumexp(1) - math.log(400))[:, None]
        expected = (log_q.exp() * (log_q - marginal)).sum(0).mean().item()
    assert nats.mean("mutual_information") == pytest.approx(
        expected, abs=4 * nats.error("mutual_information")
    )


def test_rate_distortion_curve():
    runs = {}
    for beta in (4.0, 1.0):
        oracle = LinearGaussian(stretch=beta**0.5)
        runs[beta] = where_the_nats_go(oracle.model, oracle.guide, oracle.sample(50))
    curve = rate_distortion(runs)
    assert curve["beta"].values.tolist() == [1.0, 4.0]
    np.testing.assert_allclose(curve["elbo"], -curve["distortion"] - curve["rate"])
    assert curve["rate"][1] < curve["rate"][0]
    assert curve["distortion"][1] > curve["distortion"][0]


def test_gaussian_reference_is_itself_right():
    """The closed form used above, against the oracle's own posterior."""
    oracle = LinearGaussian()
    x = oracle.sample(3)
    posterior = oracle.posterior(x)
    assert isinstance(posterior, MultivariateNormal)
    np.testing.assert_allclose(
        guide_of(oracle, x).mean.detach(), posterior.mean.detach(), atol=1e-10
    )


# --- several latent sites
# -----------------------------------------------------------------------------------------


class TwoLayers(LinearGaussian):
    """The same p(x) with z = a + e in two sites, "a" and then "b" = z; the guide's joint is
    Gaussian.
    """

    model = LinearGaussian.layered_model

    def guide(self, x):
        """The exact posterior: a given x, b given x and a, drawn as b and then a given b."""
        loc = x @ self.gain.T + self.offset
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Normal(loc, self.log_scale.exp()).to_event(1))
            pyro.sample(
                "a", dist.Normal(0.36 * b, 0.48).to_event(1)
            )  # p(a | b) with variances 0.36 and 0.64

    def joint(self, x):
        """q(a, b | x) as one Gaussian over (b, a), batch shape ``(B,)``."""
        with torch.no_grad():
            loc = x @ self.gain.T + self.offset
            spread = torch.diag_embed((2 * self.log_scale).exp())
            eye = 0.48**2 * torch.eye(len(loc[0]), dtype=x.dtype)
            rows = [
                torch.cat([spread, 0.36 * spread], 1),
                torch.cat([0.36 * spread, 0.36**2 * spread + eye], 1),
            ]
            return MultivariateNormal(torch.cat([loc, 0.36 * loc], 1), torch.cat(rows))


class Unordered(TwoLayers):
    """A guide whose second site depends on the data as well, and in which "a"
    alone tells little.
    """

    def guide(self, x):
        loc = x @ self.gain.T + self.offset
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros_like(loc), 0.7).to_event(1))
            pyro.sample("b", dist.Normal(0.5 * loc + 0.9 * a, 0.4).to_event(1))

    def joint(self, x):
        with torch.no_grad():
            loc = 0.5 * (x @ self.gain.T + self.offset)
            eye = torch.eye(len(loc[0]), dtype=x.dtype)
            rows = [
                torch.cat([(0.49 * 0.81 + 0.16) * eye, 0.49 * 0.9 * eye], 1),
                torch.cat([0.49 * 0.9 * eye, 0.49 * eye], 1),
            ]
            return MultivariateNormal(torch.cat([loc, 0 * loc], 1), torch.cat(rows))


@pytest.mark.parametrize("kind", [TwoLayers, Unordered])
def test_information_of_two_sites_together(kind):
    """Against the same mixture of N Gaussians with their joint densities, by draws of its own."""
    oracle = kind(latent_dim=2, noise=0.8)
    x = oracle.sample(60)
    nats = where_the_nats_go(oracle.model, oracle.guide, x, num_particles=500)
    law = oracle.joint(x)
    torch.manual_seed(1)
    draws = law.sample((4000,))  # (S, 60, 4)
    own = law.log_prob(draws)
    mixed = torch.stack([law.log_prob(draws[:, n, None]).logsumexp(-1) for n in range(60)], 1)
    truth = (own - mixed + math.log(60)).mean(0).numpy()
    scores = (nats.mutual_information - truth).values
    # Four draws of each of 60 data vary by about a nat.
    assert abs(scores.mean()) < 4 * scores.std() / math.sqrt(60)
    assert nats.mean("mutual_information") == pytest.approx(truth.mean(), abs=0.25)
    few = where_the_nats_go(oracle.model, oracle.guide, x, num_particles=30)
    cut = where_the_nats_go(oracle.model, oracle.guide, x, num_particles=30, memory_budget=2000)
    np.testing.assert_allclose(cut.mutual_information, few.mutual_information, rtol=1e-9)


def test_information_of_two_layers_is_that_of_the_channel():
    """With the exact guide, a adds nothing to b: I(x; a, b) = log det(I + W'W / s^2) / 2; KL(q(a,
    b) || p) = 0.
    """
    oracle = TwoLayers(latent_dim=2, noise=1.0)
    x = oracle.sample(1200)
    nats = where_the_nats_go(oracle.model, oracle.guide, x, num_particles=32)
    precision = torch.eye(2) + (oracle.weight.T @ oracle.weight).detach().float()
    assert nats.mean("mutual_information") == pytest.approx(
        0.5 * torch.logdet(precision).item(), abs=4 * nats.error("mutual_information") + 0.01
    )
    assert -4 * nats.error("marginal_kl") < nats.mean("marginal_kl") < 0.1
    far = TwoLayers(noise=0.01)
    apart = where_the_nats_go(far.model, far.guide, far.sample(10))
    np.testing.assert_allclose(apart.mutual_information, math.log(10), atol=1e-3)


def test_information_of_a_discrete_and_a_continuous_site():
    """q(c | x) decides c by the sign of x, and z is noise: log 2 nats for as many data of either
    sign.
    """

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.5))
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(2 * c - 1 + z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(torch.where(x > 0, 1.0, 0.0)))
            pyro.sample("z", dist.Normal(c, 0.7))

    nats = where_the_nats_go(model, guide, torch.tensor([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0]))
    np.testing.assert_allclose(nats.mutual_information, math.log(2), atol=1e-5)


def test_auxiliary_sites_leave_the_information_unknown():
    oracle = LinearGaussian()

    def guide(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("u", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
        return oracle.guide(x)

    nats = where_the_nats_go(oracle.model, guide, oracle.sample(5), num_particles=4)
    assert nats.mutual_information.isnull().all()
    assert nats.kl.notnull().all()


# --- without Monte Carlo noise
# ------------------------------------------------------------------------------------


def collapsed_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(10), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(z, 1.0).to_event(1))
        pyro.sample("x", dist.Normal(torch.zeros_like(x), 1.0), obs=x)


def collapsed_codes(x):
    with pyro.plate("data", len(x)):
        pyro.sample("c", dist.Categorical(x.new_full((8,), 1 / 8)))
        pyro.sample("x", dist.Normal(torch.zeros_like(x), 1.0), obs=x)


@pytest.mark.parametrize("program", [collapsed_model, collapsed_codes])
def test_a_guide_that_is_the_prior_has_no_active_units(program):
    """Means of 64 draws vary over data by a 64th of the prior's variance, which is no activity.

    The means are known for z, but not for y, whose mean is z, nor for codes, which have none.
    """
    x = torch.randn(300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    nats = where_the_nats_go(program, pyro.poutine.block(program, hide=["x"]), x, num_particles=64)
    assert nats.active_units == 0
    if program is collapsed_model:
        assert (nats.activity[:10] == 0).all()


def test_marginal_kl_of_each_datum_against_quadrature():
    oracle = LinearGaussian(latent_dim=1, noise=0.5)
    x = oracle.sample(40)
    nats = where_the_nats_go(oracle.model, oracle.guide, x, num_particles=256)
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    with torch.no_grad():
        q = Normal(x @ oracle.gain.T + oracle.offset, oracle.log_scale.exp())
        log_q = q.log_prob(grid)  # (40, 4001)
        log_mixture = log_q.logsumexp(0) - math.log(40)
        log_prior = Normal(0.0, 1.0).log_prob(grid)
        truth = (log_q.exp() * (log_mixture - log_prior)).sum(1) * (grid[1] - grid[0])
    # 256 draws of log q(z) - log p(z), which varies by a few tenths of a nat within a datum.
    np.testing.assert_allclose(nats.marginal_kl, truth, atol=0.1)
