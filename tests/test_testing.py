"""The oracles themselves, by routes that do not pass through pyrovae."""

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from torch.testing import assert_close

from pyrovae.testing import DiscreteMixture, LinearGaussian, quadrature


def test_linear_gaussian_agrees_with_scipy():
    oracle = LinearGaussian(data_dim=5, latent_dim=2, orthogonal=False)
    x = oracle.sample(6)
    weight, bias = oracle.weight.detach().numpy(), oracle.bias.detach().numpy()
    covariance = weight @ weight.T + 0.7**2 * np.eye(5)
    expected = scipy.stats.multivariate_normal(bias, covariance).logpdf(x.numpy())
    assert_close(oracle.log_prob(x).detach(), torch.as_tensor(expected))


def test_linear_gaussian_posterior_is_joint_over_evidence():
    oracle = LinearGaussian(orthogonal=False)
    x, z = (
        oracle.sample(4),
        torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
    )
    log_joint = dist.Normal(0.0, 1.0).expand([2]).to_event(1).log_prob(z) + dist.Normal(
        z @ oracle.weight.T + oracle.bias, 0.7
    ).to_event(1).log_prob(x)
    assert_close(oracle.posterior(x).log_prob(z), log_joint - oracle.log_prob(x))


def test_sample_has_the_moments_of_the_model():
    oracle = LinearGaussian()
    x = oracle.sample(200_000)
    expected = oracle.weight @ oracle.weight.T + 0.49 * torch.eye(5, dtype=torch.float64)
    # The standard error of a covariance entry is about 2 / sqrt(n) = 0.005 here; five of them.
    assert_close(x.T.cov(), expected.detach(), atol=0.025, rtol=0)
    assert_close(x.mean(0), oracle.bias.detach(), atol=0.02, rtol=0)


@pytest.mark.parametrize(("shift", "stretch"), [(0.0, 1.0), (1.0, 1.0), (0.0, 0.5), (-2.0, 1.7)])
def test_spoiled_guide_is_as_far_from_the_posterior_as_it_says(shift, stretch):
    oracle = LinearGaussian(shift=shift, stretch=stretch)
    expected = 2 * (
        0.5 * (stretch**2 + shift**2 - 1) - np.log(stretch)
    )  # two independent standardised axes
    assert_close(
        oracle.kl_to_posterior(oracle.sample(3)), torch.full((3,), expected, dtype=torch.float64)
    )


def test_discrete_mixture_sums_to_one_over_all_data():
    oracle = DiscreteMixture(data_dim=6)
    every_x = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 6)
    assert_close(oracle.log_prob(every_x).logsumexp(0).item(), 0.0, atol=1e-12, rtol=0)


def test_discrete_mixture_exact_guide_is_the_posterior():
    oracle = DiscreteMixture(exact_guide=True)
    x = oracle.sample(5)
    assert_close(oracle.log_guide(x), oracle.log_joint(x) - oracle.log_prob(x))


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_quadrature_integrates_the_linear_gaussian(latent_dim):
    oracle = LinearGaussian(latent_dim=latent_dim)
    x = oracle.sample(3)
    found = quadrature(
        lambda: dist.Normal(torch.zeros(latent_dim, dtype=torch.float64), 1.0).to_event(1),
        lambda z: dist.Normal(z @ oracle.weight.T + oracle.bias, oracle.log_noise.exp()).to_event(
            1
        ),
        x,
    )
    assert_close(found, oracle.log_prob(x).detach(), atol=1e-10, rtol=0)


def test_quadrature_refuses_three_dimensions():
    with pytest.raises(ValueError, match=r"one- and two-dimensional.*3 dimensions"):
        quadrature(
            lambda: dist.Normal(torch.zeros(3), 1.0).to_event(1), lambda z: None, torch.zeros(1, 2)
        )
