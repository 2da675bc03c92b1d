"""A VAE of x given y: scores by hand, Pyro's own inference, and log p(x | y) by quadrature and by
the prior.
"""

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

NETS = {"encoder": MLP(8), "decoder": MLP(8), "joint": MLP(8), "features": 6}
FITTING = [
    estimators.ELBO(4),
    estimators.AnalyticKL(4),
    estimators.IWAE(4),
    estimators.DReG(4),
    estimators.STL(4),
]
LEARNED = {"learned": posteriors.DiagonalNormal(), "fixed": None}


@pytest.fixture(params=LEARNED)
def vae(request):
    torch.manual_seed(0)
    parts = {"prior": LEARNED[request.param], "likelihood": likelihoods.Gaussian(0.7)}
    return shaken(pv.ConditionalVAE((2, 3), 2, 4, **parts, **NETS))


@pytest.fixture
def y():
    return torch.tensor([3, 0, 1, 1, 2])


@pytest.fixture
def x(vae, y):
    torch.manual_seed(1)
    return vae.sample(y)


def test_data_without_their_condition_are_refused_by_name():
    vae = pv.ConditionalVAE(3, 2, condition_dim=2)
    x = torch.rand(8, 3).round()
    pairs = {"e": estimators.ELBO()}
    for use in (
        lambda: vae.fit(x, epochs=1),
        lambda: vae.log_marginal(x, num_particles=5),
        lambda: pv.compare_estimators(vae.model, vae.guide, x, pairs, num_replicates=4),
        lambda: vae.fit((x, x[:, :2], x), epochs=1),
        lambda: estimators.IWAE(num_particles=2).bound(vae.model, vae.guide, x),
        lambda: estimators.ELBO().bound(vae.model, vae.guide, (x, x[:, :2], x)),
    ):
        with pytest.raises(TypeError, match=r"VAE.(model|guide) takes \(x, y\), .* as a tuple"):
            use()
    with pytest.raises(TypeError, match=r"ConditionalVAE.encode takes \(x, y\)"):
        vae.embed(x)


def test_every_site_scores_as_written(vae, x, y):
    found = draw(vae.model, vae.guide, 7, (x, y))
    z = found.latents["z"]
    assert z.value.shape == (7, 5, 2)
    hot = (y[:, None] == torch.arange(4)).double()
    seen = torch.cat([vae.posterior.features(x).clamp(min=0), hot], -1)
    assert_close(z.log_q, log_normal(z.value, vae.posterior.posterior(seen)))
    if isinstance(vae.prior, posteriors.DiagonalNormal):
        log_p = log_normal(z.value, vae.prior(hot))
    else:
        log_p = (-0.5 * z.value**2).sum(-1) - math.log(2 * math.pi)
    assert_close(z.log_p, log_p)
    p_x = vae.likelihood(torch.cat([z.value, hot.expand(7, 5, 4)], -1))
    mean, sigma = vae.likelihood.mean(p_x), p_x.variance.sqrt()
    log_x = -0.5 * ((x - mean) / sigma) ** 2 - sigma.log() - 0.5 * math.log(2 * math.pi)
    assert_close(found.log_likelihood, log_x.sum((-1, -2)))
    assert_close(found.log_weights, log_x.sum((-1, -2)) + log_p - z.log_q)


def test_labels_are_one_hot_covariates(vae, x, y):
    hot = torch.eye(4)[y]  # float32, cast to the parameters' float64
    bounds = []
    for given in (y, y.int(), hot, hot.double()):
        torch.manual_seed(0)
        bounds.append(estimators.IWAE(3).bound(vae.model, vae.guide, x, given))
    for other in bounds[1:]:
        assert_close(other, bounds[0], rtol=0, atol=0)
    torch.manual_seed(0)
    moved = estimators.IWAE(3).bound(vae.model, vae.guide, x, (y + 1) % 4)
    assert ((moved - bounds[0]).abs() > 1e-3).all()


def test_stock_inference_trains_every_parameter(vae, x, y):
    assert_trains_everything(vae, vae.model, vae.guide, Trace_ELBO(), x, y)


@pytest.mark.parametrize("num_particles", [1, 3])
def test_gradients_are_those_of_pyro(num_particles, vae, x, y):
    assert_stock_gradients(vae, estimators.ELBO(num_particles), x, y)


def test_gradients_pass_through_every_draw(vae, x, y):
    assert_gradient_is_the_slope(vae, x, y)


@pytest.mark.parametrize("estimator", FITTING, ids=repr)
def test_estimators_reach_every_parameter(estimator, vae, x, y):
    assert_finite_gradients(vae, vae.model, vae.guide, estimator, x, y)


def test_closed_form_kl_is_the_expectation(vae, x, y):
    """log q - log p over 4,000 draws averages to KL(q(z | x, y) || p(z | y)), written out for
    normals.
    """
    torch.manual_seed(0)
    particles = draw(vae.model, vae.guide, 4000, (x, y))
    analytic = estimators.AnalyticKL(1, strict=True).kl(particles).detach()
    each = (particles.log_q - particles.log_prior).detach()
    assert ((each.mean(0) - analytic).abs() < 4.5 * each.std(0) / 4000**0.5).all()


@pytest.mark.parametrize("prior", LEARNED)
def test_evidence_of_x_given_y(prior):
    torch.manual_seed(0)
    parts = {"prior": LEARNED[prior], "likelihood": likelihoods.Gaussian(0.7)}
    vae = shaken(pv.ConditionalVAE((2,), 1, 2, **parts, **NETS))
    many = torch.randn(400, 2).double()  # covariates
    options = {
        "estimator": estimators.IWAE(5),
        "epochs": 15,
        "batch_size": 40,
        "lr": 1e-2,
        "device": "cpu",
    }
    pv.fit(
        vae.model, vae.guide, (vae.sample(many), many), **options
    )  # a guide whose weights can be trusted
    y = torch.randn(6, 2).double()
    x = vae.sample(y)
    each = [
        quadrature(
            (lambda row=row: vae.prior(row)) if LEARNED[prior] else vae.prior,
            lambda z, row=row: vae.likelihood(torch.cat([z, row.expand(*z.shape[:-1], 2)], -1)),
            datum[None],
            num_points=2001,
        )
        for datum, row in zip(x, y, strict=True)
    ]
    truth = torch.cat(each)
    with torch.no_grad():  # the grid itself, by 100,000 draws from p(z | y)
        p_z = vae.prior(y) if LEARNED[prior] else vae.prior().expand((6,))
        z = p_z.sample((100_000,))
        weights = vae.likelihood(torch.cat([z, y.expand(100_000, 6, 2)], -1)).log_prob(x).exp()
    assert ((weights.mean(0) - truth.exp()).abs() < 4.5 * weights.std(0) / 100_000**0.5).all()
    assert_within_error(pv.log_marginal(vae.model, vae.guide, (x, y), num_particles=4000), truth)
    assert_within_error(vae.log_marginal((x, y), num_particles=4000, seed=1), truth)
    assert_rises_to(vae, truth, x, y)
    wrong = pv.log_marginal(vae.model, vae.guide, (x, -y), num_particles=4000)
    assert abs(wrong.log_marginal.values - truth.numpy()).max() > 0.1


@pytest.mark.parametrize("prior", LEARNED)
def test_training_raises_the_bound_and_learns_what_y_says(prior):
    torch.manual_seed(0)
    y = torch.randint(3, (256,))
    x = torch.bernoulli(0.02 + 0.96 * torch.eye(3)[y].repeat_interleave(2, 1))
    vae = pv.ConditionalVAE((6,), 2, 3, prior=LEARNED[prior], **NETS)
    before = estimators.ELBO(20).bound(vae.model, vae.guide, x[192:], y[192:]).mean()
    options = {"epochs": 25, "batch_size": 32, "lr": 1e-2, "device": "cpu"}
    history = pv.fit(vae.model, vae.guide, (x[:192], y[:192]), valid=(x[192:], y[192:]), **options)
    after = estimators.ELBO(20).bound(vae.model, vae.guide, x[192:], y[192:]).mean()
    assert after > before + 1.5
    assert abs(after - max(history["valid_bound"])) < 0.3
    asked = torch.arange(3).repeat_interleave(200)
    drawn = vae.sample(asked).reshape(3, 200, 3, 2).mean((1, 3))  # (label, pair of pixels)
    assert (drawn.argmax(1) == torch.arange(3)).all()
    assert (drawn.diagonal() > 0.8).all()


def test_draws_and_reconstructions(vae, x, y):
    assert vae.encode(x, y).batch_shape == (5,)
    assert vae(x, y).event_shape == (2,)
    z = torch.randn(7, 5, 2).double()
    hot = torch.eye(4).double()[y]
    assert_close(
        vae.decode(z, y),
        vae.likelihood.mean(vae.likelihood(torch.cat([z, hot.expand(7, 5, 4)], -1))),
    )
    assert vae.decode(z, y, mean=False).shape == (7, 5, 2, 3)
    assert (
        vae.sample(y).shape
        == vae.sample(hot, mean=True).shape
        == vae.reconstruct(x, y).shape
        == (5, 2, 3)
    )
    assert not torch.equal(
        vae.sample(torch.zeros(2).long())[0], vae.sample(torch.zeros(2).long())[1]
    )
    binary = pv.ConditionalVAE((4,), 2, 4, **NETS)
    drawn = binary.reconstruct(torch.ones(5, 4), y, mean=False)
    assert set(torch.cat([drawn, binary.sample(y)]).flatten().tolist()) == {0.0, 1.0}


def test_each_row_draws_its_own_latent():
    """Rows of one y must not share z: their means given z differ."""
    torch.manual_seed(0)
    vae = pv.ConditionalVAE((4,), 2, 3, **NETS)
    means = vae.sample(torch.zeros(50, dtype=torch.long), mean=True)
    assert len(means.unique(dim=0)) == 50


def test_wrong_arguments_are_named(vae, x, y):
    build = pv.ConditionalVAE
    with pytest.raises(ValueError, match="condition_dim"):
        build((4,), 2, 0, **NETS)
    with pytest.raises(ValueError, match="latent_dim"):
        build((4,), 2.5, 3, **NETS)
    with pytest.raises(ValueError, match=r"p\(z \| y\) must have a density, found Delta\(\)"):
        build((4,), 2, 3, prior=posteriors.Delta(), **NETS)
    with pytest.raises(ValueError, match="pseudo-inputs"):
        build((4,), 2, 3, prior=priors.Vamp(3), **NETS)
    with pytest.raises(TypeError, match="encoder must be"):
        build((4,), 2, 3, **(NETS | {"encoder": torch.nn.Linear(4, 4)}))
    with pytest.raises(TypeError, match="joint must be"):
        build((4,), 2, 3, **(NETS | {"joint": torch.nn.Linear(4, 4)}))
    with pytest.raises(TypeError, match="prior must be"):
        build((4,), 2, 3, prior=likelihoods.Bernoulli(), **NETS)
    with pytest.raises(ValueError, match="lives on the space"):
        build((4,), 3, 3, prior=posteriors.PowerSpherical(), **NETS)
    with pytest.raises(TypeError, match=r"y must be an array, a tensor.*found str"):
        vae.model(x, "digits")
    with pytest.raises(ValueError, match=r"Labels must lie in 0 ... 3, found 0 to 4"):
        vae.model(x, torch.tensor([0, 1, 2, 3, 4]))
    with pytest.raises(ValueError, match="found -1 to 3"):
        vae.guide(x, torch.tensor([0, 1, 2, 3, -1]))
    with pytest.raises(ValueError, match=r"shape \(B, 4\)"):
        vae.guide(x, torch.zeros(5, 3))
    with pytest.raises(ValueError, match="as many rows, found 5 and 4"):
        vae.model(x, y[:4])
    with pytest.raises(ValueError, match=r"shape \(B, 2, 3\)"):
        vae.model(x[:, 0], y)


def test_repr_reads_as_declared(vae):
    text = repr(vae)
    names = {
        "ConditionalVAE": pv.ConditionalVAE,
        **vars(likelihoods),
        **vars(priors),
        **vars(posteriors),
    }
    again = eval(text, {**names, "MLP": MLP})
    assert repr(again) == text
    assert type(again.prior) is type(vae.prior)


def test_copies_are_independent(vae, x, y):
    assert_copies_are_independent(vae, x, y)
