"""The decomposition of the KL: its parts, and what their weights do."""

import math

import pyro.distributions as dist
import pytest
import torch
from helpers.gradients import TwoLayers, assert_within, gradient
from torch.testing import assert_close

from pyrovae.estimators import ELBO, BetaTC
from pyrovae.handlers import KLScale
from pyrovae.testing import LinearGaussian


@pytest.fixture
def oracle():
    made = LinearGaussian(shift=0.5, stretch=1.5, orthogonal=False, seed=1)
    return made, made.sample(4)


def test_parts_equal_loops_over_the_batch(oracle):
    module, x = oracle
    estimator = BetaTC(2, data_size=50)
    particles = estimator.particles(module.model, module.guide, x)
    z = particles.latents["z"].value.detach()
    q = dist.Normal(x @ module.gain.T + module.offset, module.log_scale.exp())
    parts = estimator.decompose(particles)
    for k in range(2):
        for i in range(4):
            each = q.log_prob(z[k, i]).exp()  # (B, D), of z_i under every datum
            joint = (each.prod(-1).sum() / (50 * 4)).log()
            alone = (each.sum(0) / (50 * 4)).log().sum()
            log_q = q.log_prob(z[k, i])[i].sum()
            log_p = dist.Normal(0.0, 1.0).log_prob(z[k, i]).sum()
            expected = torch.stack([log_q - joint, joint - alone, alone - log_p])
            assert_close(torch.stack([part[k, i] for part in parts]).detach(), expected.detach())


def test_unit_weights_have_the_gradient_of_the_elbo(oracle):
    module, x = oracle
    found = []
    for estimator in (BetaTC(3, total_correlation=1.0), ELBO(3)):
        torch.manual_seed(0)
        found.append(gradient(module, estimator.differentiable_loss(module.model, module.guide, x)))
    assert_close(*found)


def test_all_parts_are_under_the_kl_scale(oracle):
    module, x = oracle
    found = []
    for estimator in (BetaTC(3, total_correlation=1.0), ELBO(3)):
        torch.manual_seed(0)
        loss = estimator.differentiable_loss(
            KLScale(0.3)(module.model), KLScale(0.3)(module.guide), x
        )
        found.append(gradient(module, loss))
    assert_close(*found)


def test_total_correlation_of_the_whole_data_is_that_of_the_mixture(oracle):
    """For a batch that is the data, the estimate differs from KL(q(z) || prod q(z_d)) by (D - 1)
    log M alone.
    """
    module, x = oracle
    estimator = BetaTC(20_000)
    torch.manual_seed(0)
    with torch.no_grad():
        particles = estimator.particles(module.model, module.guide, x)
        draws = estimator.decompose(particles).total_correlation.mean(1)
    axis = torch.linspace(-6, 6, 601, dtype=x.dtype)
    q = dist.Normal(x @ module.gain.T + module.offset, module.log_scale.exp())
    density = q.log_prob(axis[:, None, None]).exp().detach()  # (points, B, D)
    joint = torch.einsum("ib,jb->ij", density[..., 0], density[..., 1]) / 4
    product = density[..., 0].mean(1)[:, None] * density[..., 1].mean(1)[None]
    step = (axis[1] - axis[0]) ** 2
    exact = (torch.xlogy(joint, joint) - torch.xlogy(joint, product)).sum() * step
    mean = draws.mean() - math.log(4)
    assert_within(mean, draws.std() / len(draws) ** 0.5, exact)


def test_data_size_moves_no_gradient(oracle):
    module, x = oracle
    found = []
    for size in (4, 10_000):
        torch.manual_seed(0)
        estimator = BetaTC(2, data_size=size)
        found.append(gradient(module, estimator.differentiable_loss(module.model, module.guide, x)))
    assert_close(*found)


def test_weights_weigh_the_parts(oracle):
    module, x = oracle
    torch.manual_seed(0)
    estimator = BetaTC(2, mutual_information=0.5, total_correlation=3.0, dimension=2.0)
    particles = estimator.particles(module.model, module.guide, x)
    parts = estimator.decompose(particles)
    formula = particles.log_likelihood - 0.5 * parts[0] - 3.0 * parts[1] - 2.0 * parts[2]
    assert_close(estimator.terms(particles).objective, formula.mean(0))


def test_two_sites_are_refused():
    module = TwoLayers()
    with pytest.raises(ValueError, match="one latent site"):
        BetaTC().bound(module.model, module.guide, torch.zeros(3, dtype=torch.float64))


def test_negative_weights_are_refused():
    with pytest.raises(ValueError, match="weights >= 0"):
        BetaTC(total_correlation=-1.0)
