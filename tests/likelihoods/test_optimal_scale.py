"""The scale of a Gaussian that is fitted in closed form, and fixed wherever a likelihood is
reported.
"""

import pyro
import pytest
import torch
from torch.testing import assert_close

import pyrovae as pv
from pyrovae import estimators, nets
from pyrovae.likelihoods import Gaussian

F64 = torch.float64


def make(likelihood, data_shape=(3,), latent_dim=2, seed=0, **kwargs):
    pyro.set_rng_seed(seed)
    nets_ = {"encoder": nets.MLP(4), "decoder": nets.MLP(4, activation="tanh"), **kwargs}
    return pv.VAE(data_shape, latent_dim, likelihood=likelihood, **nets_).double()


class TestOptimalScale:
    def setup_method(self):
        self.vae = make(Gaussian("optimal", initial_scale=2.0)).train()
        self.x, self.z = torch.randn(6, 3, dtype=F64), torch.randn(6, 2, dtype=F64)
        self.loc = self.vae.likelihood(self.z).base_dist.loc.detach()

    def test_is_the_maximum_over_all_scales(self):
        fitted = self.vae.likelihood(self.z).log_prob(self.x).sum()
        best = (self.x - self.loc).square().mean().sqrt()
        grid = best * torch.linspace(0.5, 2, 151, dtype=F64)
        each = torch.stack(
            [torch.distributions.Normal(self.loc, s).log_prob(self.x).sum() for s in grid]
        )
        assert_close(
            fitted.detach(), torch.distributions.Normal(self.loc, best).log_prob(self.x).sum()
        )
        assert fitted > each.max() - 1e-12
        assert grid[each.argmax()].item() == pytest.approx(best.item(), rel=0.01)

    def test_its_gradient_is_that_of_the_log_error(self):
        """With sigma at its optimum the objective is -N/2 log mean square
        error, up to a constant.
        """
        parameters = list(self.vae.likelihood.decoder.parameters())
        found = torch.autograd.grad(self.vae.likelihood(self.z).log_prob(self.x).sum(), parameters)
        loc = self.vae.likelihood(self.z).base_dist.loc
        objective = -0.5 * self.x.numel() * (self.x - loc).square().mean().log()
        for left, right in zip(found, torch.autograd.grad(objective, parameters), strict=True):
            assert_close(left, right)

    def test_is_frozen_wherever_a_likelihood_is_reported(self):
        """No gradients or eval mode: one sigma whatever the data, one datum's density independent
        of another's.
        """
        estimators.ELBO().loss_and_grads(self.vae.model, self.vae.guide, self.x)
        variance = self.vae.likelihood.running_variance.clone()
        assert variance != 4.0
        with torch.no_grad():
            trained = self.vae.likelihood(self.z).log_prob(self.x)
        self.vae.eval()
        assert_close(self.vae.likelihood(self.z).log_prob(self.x).detach(), trained)
        assert_close(self.vae.likelihood(self.z[:2]).log_prob(self.x[:2]).detach(), trained[:2])
        assert_close(self.vae.likelihood(self.z).base_dist.scale.detach(), variance.sqrt())
        assert torch.equal(self.vae.likelihood.running_variance, variance)
        assert "likelihood.running_variance" in self.vae.state_dict()

    def test_running_variance_is_the_mean_of_the_first_batches(self):
        seen = []
        for step in range(4):
            x = self.x * (step + 1)
            self.vae.likelihood(self.z).log_prob(x)
            seen.append((x - self.loc).square().mean())
        assert_close(self.vae.likelihood.running_variance, torch.stack(seen).mean())

    def test_never_falls_below_the_minimum(self):
        assert self.vae.likelihood(self.z).log_prob(self.loc).isfinite().all()
        assert_close(self.vae.likelihood.running_variance.item(), 1e-6, rtol=1e-6, atol=0)
