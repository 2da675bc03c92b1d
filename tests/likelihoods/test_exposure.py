"""Counts given an exposure: the total of the datum, or one that the user gives."""

import math

import pyro
import pytest
import torch
from torch.testing import assert_close

import pyrovae as pv
from pyrovae import estimators, nets
from pyrovae.distributions import counts as count_distributions
from pyrovae.likelihoods import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial

F64 = torch.float64


def make(likelihood, data_shape=(3,), latent_dim=2, seed=0, **kwargs):
    pyro.set_rng_seed(seed)
    nets_ = {"encoder": nets.MLP(4), "decoder": nets.MLP(4, activation="tanh"), **kwargs}
    return pv.VAE(data_shape, latent_dim, likelihood=likelihood, **nets_).double()


class TestExposure:
    """p(x | z, n): a distribution for each n, evaluated at the datum's own."""

    total = 7.0

    @pytest.mark.parametrize("family", [Poisson, NegativeBinomial, ZeroInflatedNegativeBinomial])
    def test_total_is_the_exposure_read_off_the_datum(self, family):
        likelihood = make(family(exposure="total")).likelihood
        z = torch.randn(5, 2, dtype=F64)
        x = torch.tensor([[0, 3, 4], [1, 0, 0], [100, 0, 7], [0, 0, 0], [2, 2, 2]], dtype=F64)
        outputs = likelihood.decoder(z)
        given = likelihood.distribution(
            outputs, exposure=x.sum(1, keepdim=True).clamp(min=1)
        ).to_event(1)
        assert_close(likelihood(z).log_prob(x), given.log_prob(x))
        assert_close(likelihood(z).expand((4, 5)).log_prob(x), given.log_prob(x).expand(4, 5))
        assert_close(given.base_dist.log_mean.exp().sum(1), x.sum(1).clamp(min=1))

    @pytest.mark.parametrize("family", [Poisson, NegativeBinomial, ZeroInflatedNegativeBinomial])
    def test_is_a_distribution_over_all_counts_given_the_exposure(self, family):
        likelihood = make(family(exposure="total"), (1,)).likelihood
        outputs = likelihood.decoder(torch.randn(1, 2, dtype=F64))
        x = torch.arange(3000, dtype=F64)[:, None]
        p = likelihood.distribution(outputs, exposure=torch.tensor(self.total)).log_prob(x).exp()
        assert_close(p.sum().item(), 1.0)

    def test_exposure_of_ones_own_multiplies_the_mean(self):
        likelihood = make(Poisson()).likelihood
        outputs = likelihood.decoder(torch.randn(4, 2, dtype=F64))
        n = torch.tensor([[1.0], [2.0], [5.0], [0.1]], dtype=F64)
        assert_close(
            likelihood.distribution(outputs, n).mean, n * likelihood.distribution(outputs).mean
        )

    def test_draws_take_the_typical_total(self):
        vae = make(Poisson(exposure="total", typical_total=50.0))
        total = vae.sample(4000).sum(1)
        # A Poisson of mean 50: five standard errors of its mean over 4,000 draws are 0.56.
        assert abs(total.mean().item() - 50) < 0.56

    def test_empty_datum_is_finite(self):
        vae = make(NegativeBinomial(exposure="total"))
        loss = estimators.ELBO().loss_and_grads(vae.model, vae.guide, torch.zeros(2, 3, dtype=F64))
        assert math.isfinite(loss)
        assert all(p.grad is None or p.grad.isfinite().all() for p in vae.parameters())


def test_counts_of_the_user_reach_the_distribution():
    """A model of one's own with an exposure handed in as data is an ordinary Pyro program."""
    vae = make(NegativeBinomial(link="exp"))

    def model(x, n):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", vae.prior())
            outputs = vae.likelihood.decoder(z)
            pyro.sample(
                "x", vae.likelihood.distribution(outputs, exposure=n[:, None]).to_event(1), obs=x
            )

    def guide(x, n):
        with pyro.plate("data", len(x)):
            pyro.sample("z", vae.posterior(x))

    x, n = torch.tensor([[1.0, 2, 3], [0, 0, 9]], dtype=F64), torch.tensor([2.0, 3.0], dtype=F64)
    pyro.set_rng_seed(0)
    found = estimators.IWAE(num_particles=500).bound(model, guide, x, n)
    # The same program with the exposure moved into the log-mean by hand.
    pyro.set_rng_seed(0)
    particles = estimators.IWAE(num_particles=500).particles(model, guide, x, n)
    z = particles.latents["z"].value
    raw = vae.likelihood.decoder(z).squeeze(-2) + n.log()[:, None]
    by_hand = (
        count_distributions.NegativeBinomial(raw, 1 / vae.likelihood.dispersion_of())
        .log_prob(x)
        .sum(-1)
    )
    weights = by_hand + vae.prior().log_prob(z) - vae.posterior(x).log_prob(z)
    assert_close(found, (weights.logsumexp(0) - math.log(500)).detach())
