"""Two stochastic layers: scores by hand, Pyro's own inference, and evidence by quadrature."""

import math

import pytest
import torch
from helpers.models import (
    assert_copies_are_independent,
    assert_finite_gradients,
    assert_gradient_is_the_slope,
    assert_rises_to,
    assert_stock_gradients,
    assert_trains_everything,
    assert_within_error,
    log_bernoulli,
    log_normal,
    shaken,
)
from pyro.infer import Trace_ELBO
from torch.testing import assert_close

import pyrovae as pv
from pyrovae import estimators, likelihoods, posteriors, priors
from pyrovae.nets import MLP
from pyrovae.particles import draw
from pyrovae.testing import quadrature

NETS = {"encoder": MLP(8), "decoder": MLP(8), "between": MLP(8), "features": 6}
FITTING = [
    estimators.ELBO(4),
    estimators.AnalyticKL(4),
    estimators.IWAE(4),
    estimators.DReG(4),
    estimators.STL(4),
]


class Both:
    """p(z1, z2) as one density over pairs (z1, z2), for the grid."""

    event_shape = (2,)

    def __init__(self, vae):
        self.vae = vae

    def sample(self):
        return torch.zeros(2, dtype=torch.float64)

    def log_prob(self, z):
        z1, z2 = z[..., :1], z[..., 1:]
        return self.vae.prior().log_prob(z2) + self.vae.conditionals[0](z2).log_prob(z1)


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return shaken(pv.HierarchicalVAE((2, 3), (2, 3), **NETS))


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return shaken(pv.HierarchicalVAE((4,), (1, 1), **NETS))


@pytest.fixture
def x(vae):
    torch.manual_seed(1)
    return vae.sample(5)


def test_every_site_scores_as_written(vae, x):
    torch.manual_seed(0)
    found = draw(vae.model, vae.guide, 7, (x,))
    z1, z2 = found.latents["z1"], found.latents["z2"]
    assert list(found.latents) == ["z2", "z1"]
    assert z1.value.shape == (7, 5, 2)
    assert z2.value.shape == (7, 5, 3)
    above = log_normal(z2.value, vae.posteriors.first(x))
    seen = vae.posteriors.lower[0].features(x).clamp(min=0).expand(7, 5, 6)
    below = log_normal(z1.value, vae.posteriors.lower[0].posterior(torch.cat([seen, z2.value], -1)))
    top = (-0.5 * z2.value**2).sum(-1) - 1.5 * math.log(2 * math.pi)
    low = log_normal(z1.value, vae.conditionals[0](z2.value))
    logits = vae.likelihood.decoder(torch.cat([z1.value, z2.value], -1)).reshape(7, 5, 6)
    log_x = log_bernoulli(x.reshape(5, 6), logits)
    for got, wanted in (
        (z2.log_q, above),
        (z1.log_q, below),
        (z2.log_p, top),
        (z1.log_p, low),
        (found.log_likelihood, log_x),
    ):
        assert_close(got, wanted)
    torch.manual_seed(0)
    bound = estimators.ELBO(7).bound(vae.model, vae.guide, x)
    assert_close(bound, (log_x + top + low - above - below).mean(0).detach())


def test_stock_inference_trains_every_parameter(vae, x):
    assert_trains_everything(vae, vae.model, vae.guide, Trace_ELBO(), x)


@pytest.mark.parametrize("num_particles", [1, 3])
def test_gradients_are_those_of_pyro(num_particles, vae, x):
    assert_stock_gradients(vae, estimators.ELBO(num_particles), x)


def test_gradients_pass_through_every_draw(vae, x):
    assert_gradient_is_the_slope(vae, x)


@pytest.mark.parametrize("estimator", FITTING, ids=repr)
def test_estimators_reach_every_parameter(estimator, vae, x):
    assert_finite_gradients(vae, vae.model, vae.guide, estimator, x)


def test_closed_form_kl_of_both_layers(vae, x):
    """No fallback, and the mean over 4,000 draws of the closed form is that of the plain bound."""
    analytic, plain = estimators.AnalyticKL(4000, strict=True), estimators.ELBO(4000)
    torch.manual_seed(0)
    ours = analytic.bound(vae.model, vae.guide, x)
    particles = draw(vae.model, vae.guide, 4000, (x,))
    weights = particles.log_weights.detach()
    assert_close(plain.terms(particles).bound.detach(), weights.mean(0))
    error = weights.std(0) / 4000**0.5
    assert ((ours - weights.mean(0)).abs() < 4.5 * 2**0.5 * error).all()


def test_evidence_against_quadrature(tiny):
    torch.manual_seed(0)
    x = tiny.sample(6)
    truth = quadrature(lambda: Both(tiny), tiny.likelihood, x, num_points=241)
    assert_within_error(pv.log_marginal(tiny.model, tiny.guide, x, num_particles=40_000), truth)
    assert_rises_to(tiny, truth, x)
    annealed = pv.log_marginal(tiny.model, tiny.guide, x, method=pv.AIS(20, 30, num_leapfrog=4))
    assert_within_error(annealed, truth)


def test_training_raises_the_bound_and_vamp_goes_on_top():
    torch.manual_seed(0)
    x = (torch.rand(192, 1) < 0.5).float().expand(192, 6).clone()
    for prior in (None, priors.Vamp(5)):
        torch.manual_seed(0)
        vae = pv.HierarchicalVAE((6,), (2, 2), prior=prior, **NETS)
        before = estimators.ELBO(20).bound(vae.model, vae.guide, x[128:]).mean()
        history = pv.fit(
            vae.model,
            vae.guide,
            x[:128],
            valid=x[128:],
            epochs=8,
            batch_size=32,
            lr=1e-2,
            device="cpu",
        )
        after = estimators.ELBO(20).bound(vae.model, vae.guide, x[128:]).mean()
        assert after > before + 0.5
        assert (
            abs(after - max(history["valid_bound"])) < 0.5
        )  # the weights kept are the best epoch's


def test_vamp_mixes_the_top_posterior():
    torch.manual_seed(0)
    vae = shaken(pv.HierarchicalVAE((4,), (2, 2), prior=priors.Vamp(3), **NETS))
    x = vae.sample(4)
    site = draw(vae.model, vae.guide, 5, (x,)).latents["z2"]
    each = [
        log_normal(site.value, vae.posteriors.first(u[None])) for u in vae.prior.pseudo_inputs()
    ]
    assert_close(site.log_p, torch.stack(each).exp().mean(0).log())
    assert_stock_gradients(vae, estimators.ELBO(3), x)
    assert_trains_everything(vae, vae.model, vae.guide, Trace_ELBO(), x)
    for estimator in (estimators.DReG(3), estimators.STL(3)):
        assert_finite_gradients(vae, vae.model, vae.guide, estimator, x)


def test_draws_and_reconstructions(vae, x):
    assert vae.encode(x).batch_shape == (5,)
    assert vae(x).event_shape == (3,)
    z1, z2 = torch.randn(7, 5, 2).double(), torch.randn(5, 3).double()
    means = vae.decode(z1, z2)
    wanted = (
        vae.likelihood.decoder(torch.cat([z1, z2.expand(7, 5, 3)], -1))
        .sigmoid()
        .reshape(7, 5, 2, 3)
    )
    assert_close(means, wanted)
    for drawn in (vae.sample(4), vae.reconstruct(x, mean=False), vae.decode(z1, z2, mean=False)):
        assert drawn.shape[-2:] == (2, 3)
        assert set(drawn.flatten().tolist()) == {0.0, 1.0}
    for mean in (vae.sample(4, mean=True), vae.reconstruct(x)):
        assert mean.shape[-2:] == (2, 3)
        assert ((mean > 0) & (mean < 1)).all()


def test_samples_follow_the_model(tiny):
    """Frequencies of all 16 binary data, by chi-square: 15 degrees of freedom, one alarm in 10^4
    above 44.
    """
    torch.manual_seed(0)
    with torch.no_grad():
        for p in (*tiny.conditionals[0].parameters(), *tiny.likelihood.parameters()):
            p *= 2  # so that z1 leans on z2, and x on both
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 4)
    truth = quadrature(
        lambda: Both(tiny), tiny.likelihood, every, low=-20, high=20, num_points=401, data_chunk=4
    ).exp()
    assert truth.sum().item() == pytest.approx(1, abs=1e-4)
    drawn = (tiny.sample(20_000) @ torch.tensor([8.0, 4.0, 2.0, 1.0]).double()).long()
    counts = torch.bincount(drawn, minlength=16)
    assert ((counts - 20_000 * truth) ** 2 / (20_000 * truth)).sum() < 44


def test_wrong_arguments_are_named(vae, x):
    build = pv.HierarchicalVAE
    with pytest.raises(ValueError, match="two or more positive integers"):
        build((4,), (2,), **NETS)
    with pytest.raises(ValueError, match="latent_dims"):
        build((4,), (2, 0), **NETS)
    with pytest.raises(ValueError, match="data_shape"):
        build((0,), (2, 2), **NETS)
    with pytest.raises(ValueError, match="features"):
        build((4,), (2, 2), **(NETS | {"features": 0}))
    with pytest.raises(TypeError, match="encoder must be"):
        build((4,), (2, 2), **(NETS | {"encoder": torch.nn.Linear(4, 4)}))
    with pytest.raises(TypeError, match="between must be"):
        build((4,), (2, 2), **(NETS | {"between": torch.nn.Linear(4, 4)}))
    with pytest.raises(TypeError, match="Give an instance"):
        build((4,), (2, 2), prior=priors.StandardNormal, **NETS)
    with pytest.raises(TypeError, match="likelihood must be"):
        build((4,), (2, 2), likelihood=posteriors.DiagonalNormal(), **NETS)
    with pytest.raises(ValueError, match="lives on the space"):
        build((4,), (2, 3), posterior=posteriors.PowerSpherical(), **NETS)
    with pytest.raises(ValueError, match=r"p\(z1 \| z2\) must have a density, found Delta\(\)"):
        build((4,), (2, 2), conditional=posteriors.Delta(), **NETS)
    with pytest.raises(ValueError, match="Give conditional= the family of posterior="):
        build((4,), (3, 2), conditional=posteriors.PowerSpherical(), **NETS)
    with pytest.raises(ValueError, match="shape"):
        vae.model(x[:, 0])
    with pytest.raises(TypeError, match="floating"):
        vae.guide(x.long())
    with pytest.raises(ValueError, match="Bernoulli"):
        vae.model(x + 0.5)
    with pytest.raises(ValueError, match="num_samples"):
        vae.sample(0)


def test_repr_reads_as_declared():
    vae = pv.HierarchicalVAE(
        (4,),
        (3, 2),
        likelihood=likelihoods.Gaussian(0.5),
        posterior=posteriors.DiagonalNormal(),
        **NETS,
    )
    text = repr(vae)
    again = eval(
        text,
        {
            "HierarchicalVAE": pv.HierarchicalVAE,
            **vars(likelihoods),
            **vars(priors),
            **vars(posteriors),
            "MLP": MLP,
        },
    )
    assert repr(again) == text
    assert again.latent_dims == (3, 2)


def test_copies_are_independent(vae, x):
    assert_copies_are_independent(vae, x)
