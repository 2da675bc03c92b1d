"""Gradients along the draws: unbiased, zero at the exact posterior, whole where the prior shares
the encoder.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.gradients import SharedPrior, TwoLayers, assert_within, exact_elbo, gradient, spread
from torch.testing import assert_close

import pyrovae as pv
from pyrovae import likelihoods, nets, posteriors
from pyrovae.estimators import ELBO, IWAE, RWS, STL, STLIWAE, AnalyticKL, DReG, RWSDReG
from pyrovae.handlers import KLScale
from pyrovae.particles import draw
from pyrovae.testing import LinearGaussian

GUIDE = ("gain", "offset", "log_scale")


def guide_part(oracle, vector):
    sizes = [p.numel() for p in oracle.parameters()]
    names = [name for name, _ in oracle.named_parameters()]
    return torch.cat(
        [piece for name, piece in zip(names, vector.split(sizes), strict=True) if name in GUIDE]
    )


@pytest.mark.parametrize("estimator", [STL(1), STL(4), DReG(1), DReG(8), STLIWAE(8)], ids=repr)
def test_guide_gradient_vanishes_at_the_exact_posterior(estimator, exact):
    oracle, x = exact
    found = gradient(oracle, estimator.differentiable_loss(oracle.model, oracle.guide, x))
    assert_close(guide_part(oracle, found), torch.zeros(14, dtype=x.dtype), rtol=0, atol=1e-12)
    noisy = gradient(oracle, ELBO(1).differentiable_loss(oracle.model, oracle.guide, x))
    assert guide_part(oracle, noisy).abs().max() > 0.01


@pytest.mark.parametrize("estimator", [STL(2), DReG(8)], ids=repr)
def test_it_vanishes_in_every_layer(estimator):
    module, x = TwoLayers(), torch.tensor([0.3, -1.0], dtype=torch.float64)
    found = gradient(module, estimator.differentiable_loss(module.model, module.guide, x))
    assert_close(found[module.guide_slice], torch.zeros(4, dtype=x.dtype), rtol=0, atol=1e-12)


@pytest.mark.parametrize("num_particles", [1, 3])
def test_stl_has_the_expected_gradient_of_the_elbo(num_particles, spoilt):
    oracle, x = spoilt
    mean, error = spread(STL(num_particles), oracle, x)
    assert_within(mean, error, gradient(oracle, exact_elbo(oracle, x).sum()))


def test_stl_of_two_layers_has_the_exact_gradient():
    module, x = TwoLayers(spoil=0.3), torch.tensor([0.3, -1.0], dtype=torch.float64)
    mean, error = spread(STL(2), module, x)
    assert_within(mean, error, gradient(module, module.elbo(x).sum()))


def test_dreg_of_two_layers_has_the_expected_gradient_of_iwae():
    module, x = TwoLayers(spoil=0.3), torch.tensor([0.3, -1.0], dtype=torch.float64)
    mean, error = spread(DReG(4), module, x, copies=1_000)
    other, other_error = spread(IWAE(4), module, x, copies=1_000, seed=1_000)
    assert_within(mean, error, other, other_error)


def test_dreg_has_the_expected_gradient_of_iwae_and_stl_iwae_has_not(spoilt):
    oracle, x = spoilt
    other, other_error = spread(IWAE(5), oracle, x, copies=1_000, seed=1_000)
    mean, error = spread(DReG(5), oracle, x, copies=1_000)
    assert_within(mean, error, other, other_error)
    biased, error = spread(STLIWAE(5), oracle, x, copies=1_000)
    assert ((biased - other).abs() / (error**2 + other_error**2).sqrt()).max() > 20


def test_rws_dreg_has_the_expected_gradient_of_the_wake_update_with_less_noise(spoilt):
    oracle, x = spoilt
    mean, error = spread(RWSDReG(5), oracle, x)
    other, other_error = spread(RWS(5), oracle, x, seed=1_000)
    assert_within(mean, error, other, other_error)
    assert guide_part(oracle, error).norm() < 0.8 * guide_part(oracle, other_error).norm()


@pytest.mark.parametrize("estimator", [STL(2), AnalyticKL(1)], ids=repr)
def test_a_prior_that_shares_the_encoder_keeps_its_whole_gradient(estimator):
    module = SharedPrior(shift=0.5, stretch=1.3)
    x = module.sample(2)
    mean, error = spread(estimator, module, x)
    assert_within(mean, error, gradient(module, module.elbo(x).sum()))


def test_dreg_with_a_prior_that_shares_the_encoder():
    module = SharedPrior(shift=0.5, stretch=1.3)
    x = module.sample(2)
    mean, error = spread(DReG(4), module, x, copies=1_000)
    other, other_error = spread(IWAE(4), module, x, copies=1_000, seed=1_000)
    assert_within(mean, error, other, other_error)


def test_stl_under_a_kl_scale_has_the_exact_gradient(spoilt):
    oracle, x = spoilt
    beta = 0.3
    q = dist.Normal(x @ oracle.gain.T + oracle.offset, oracle.log_scale.exp()).to_event(1)
    prior = dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1)
    kl = torch.distributions.kl_divergence(q, prior)
    exact = (exact_elbo(oracle, x) + (1 - beta) * kl).sum()
    truth = gradient(oracle, exact)
    oracle.model, oracle.guide = KLScale(beta)(oracle.model), KLScale(beta)(oracle.guide)
    mean, error = spread(STL(2), oracle, x)
    assert_within(mean, error, truth)


@pytest.mark.parametrize(("left", "right"), [(DReG(1), STL(1)), (STLIWAE(1), STL(1))], ids=repr)
def test_one_particle_sticks_the_landing(left, right, spoilt):
    oracle, x = spoilt
    found = []
    for estimator in (left, right):
        torch.manual_seed(2)
        found.append(gradient(oracle, estimator.differentiable_loss(oracle.model, oracle.guide, x)))
    assert_close(*found)


def test_model_gradient_of_dreg_is_that_of_iwae_draw_by_draw(spoilt):
    oracle, x = spoilt
    found = []
    for estimator in (DReG(6), IWAE(6)):
        torch.manual_seed(2)
        found.append(gradient(oracle, estimator.differentiable_loss(oracle.model, oracle.guide, x)))
    model = sum(p.numel() for p in (oracle.weight, oracle.bias, oracle.log_noise))
    assert_close(found[0][:model], found[1][:model])


@pytest.mark.parametrize(("estimator", "slope"), [(IWAE, -0.5), (DReG, 0.5)])
def test_signal_to_noise_of_the_guide_against_particles(estimator, slope):
    """Of one datum: near -1/2 for IWAE, not negative for DReG (near +1/2, for an average of K
    terms).
    """
    oracle = LinearGaussian(shift=0.3, stretch=1.1)
    x = oracle.sample(1)
    counts, ratios = (4, 16, 64), []
    for num_particles in counts:
        torch.manual_seed(0)
        made = estimator(num_particles)
        # Gradients of single data, by one weight each: the sum over copies is linear in them.
        weights = torch.ones(6_000, dtype=x.dtype, requires_grad=True)

        def guide(data, weights=weights):
            mean, scale = (
                data @ oracle.gain.T + oracle.offset * weights[:, None],
                oracle.log_scale.exp(),
            )
            with pyro.plate("data", len(data), dim=-1):
                pyro.sample("z", dist.Normal(mean, scale).to_event(1))

        loss = made.differentiable_loss(oracle.model, guide, x.expand(6_000, -1))
        (found,) = torch.autograd.grad(loss, weights)
        ratios.append((found.mean().abs() / found.std()).log().item())
    logs = torch.tensor(counts).double().log()
    centred = logs - logs.mean()
    fitted = (centred * torch.tensor(ratios).double()).sum() / centred.square().sum()
    # The mean is known to about 1 / (ratio * sqrt(6,000)), which moves the slope by less than 0.2.
    assert fitted == pytest.approx(slope, abs=0.25)


def test_a_site_without_rsample_is_refused_by_name(mixture):
    oracle, x = mixture
    for estimator in (STL(), DReG(), IWAE()):
        with pytest.raises(ValueError, match=r"'c'.*Categorical has no rsample"):
            estimator.bound(oracle.model, oracle.guide, x)


def test_one_pass_over_the_model_has_the_gradient_of_two(spoilt):
    """A single site crosses a bridge; without it, the same surrogate differentiates the model
    twice.
    """
    oracle, x = spoilt
    found = []
    for draws in ("bridged", "detached"):
        torch.manual_seed(4)
        particles = draw(oracle.model, oracle.guide, 5, (x,), draws=draws)
        shares = particles.log_weights.detach().softmax(0)
        ratio = torch.linspace(0.1, 2.0, 15, dtype=x.dtype).reshape(5, 3)
        surrogate = particles.doubly_reparameterized(
            particles.log_p, particles.log_q, shares, ratio
        )
        found.append(gradient(oracle, surrogate))
    assert_close(*found)


def test_the_bridge_has_room_for_inner_plates():
    class Pairs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.tensor([0.4, 0.7], dtype=torch.float64))

        def model(self, x):
            with pyro.plate("data", x.shape[1], dim=-1), pyro.plate("inner", 2, dim=-2):
                z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z * self.gain, 1.0).to_event(1), obs=x)

        def guide(self, x):
            with pyro.plate("data", x.shape[1], dim=-1), pyro.plate("inner", 2, dim=-2):
                pyro.sample("z", dist.Normal(self.gain * x, 0.8).to_event(1))

    module, x = (
        Pairs(),
        torch.randn(2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
    )
    found = []
    for draws in ("bridged", "detached"):
        torch.manual_seed(4)
        particles = draw(module.model, module.guide, 5, (x,), max_plate_nesting=2, draws=draws)
        ratio = torch.linspace(0.1, 2.0, 15, dtype=x.dtype).reshape(5, 3)
        surrogate = particles.doubly_reparameterized(
            particles.log_p, particles.log_q, torch.ones_like(ratio), ratio
        )
        found.append(gradient(module, surrogate))
    assert_close(*found)


def test_a_point_posterior_has_the_gradient_of_the_elbo():
    vae = pv.VAE(
        4,
        2,
        posterior=posteriors.Delta(),
        likelihood=likelihoods.Gaussian(),
        encoder=nets.MLP(5),
        decoder=nets.MLP(5),
    ).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    found = [
        gradient(vae, estimator.differentiable_loss(vae.model, vae.guide, x))
        for estimator in (STL(2), ELBO(2))
    ]
    assert_close(*found)
