"""Clusters in latent space: c summed out, c enumerated by Pyro, and c summed over by hand."""

import math

import pyro
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
    gradients,
    log_bernoulli,
    log_normal,
    shaken,
)
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from torch.testing import assert_close

import pyrovae as pv
from pyrovae import estimators, likelihoods, posteriors, priors
from pyrovae.nets import MLP
from pyrovae.particles import draw
from pyrovae.testing import quadrature

NETS = {"encoder": MLP(8), "decoder": MLP(8)}
FITTING = [estimators.ELBO(4), estimators.IWAE(4), estimators.DReG(4), estimators.STL(4)]


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return shaken(pv.ClusteringVAE((2, 3), 2, 4, spread=2.0, **NETS))


@pytest.fixture
def x(vae):
    torch.manual_seed(1)
    return vae.sample(5)


def by_cluster(vae, z):
    """``(*batch, C)``: log pi_c + log N(z; mu_c, sigma_c), written out."""
    prior = vae.prior
    sigma = (1 + prior.raw_scales.exp()).log() + prior.min_scale
    squares = ((z[..., None, :] - prior.locs) / sigma) ** 2
    log_n = (-0.5 * squares - sigma.log() - 0.5 * math.log(2 * math.pi)).sum(-1)
    return prior.logits - prior.logits.exp().sum().log() + log_n


def test_every_site_scores_as_written(vae, x):
    found = draw(vae.model, vae.guide, 7, (x,))
    z = found.latents["z"]
    assert z.value.shape == (7, 5, 2)
    log_q = log_normal(z.value, vae.posterior(x))
    log_p = by_cluster(vae, z.value).exp().sum(-1).log()
    log_x = log_bernoulli(x.reshape(5, 6), vae.likelihood.decoder(z.value).reshape(7, 5, 6))
    for got, wanted in ((z.log_q, log_q), (z.log_p, log_p), (found.log_likelihood, log_x)):
        assert_close(got, wanted)


def test_the_joint_pair_weighs_as_if_c_were_summed_out(vae, x):
    """q(c | z) is exact, so whichever c is drawn, log p(x, z, c) - log q(z, c | x) = log p(x, z) -
    log q(z | x).
    """
    found = draw(vae.joint_model, vae.joint_guide, 7, (x,))
    z, c = found.latents["z"], found.latents["c"]
    assert c.value.shape == (7, 5)
    assert set(c.value.flatten().tolist()) <= {0, 1, 2, 3}
    assert len(c.value.unique()) > 1
    parts = by_cluster(vae, z.value)
    at_c = parts.gather(-1, c.value[..., None]).squeeze(-1)
    assert_close(c.log_p + z.log_p, at_c)
    assert_close(c.log_q, at_c - parts.logsumexp(-1))
    log_x = log_bernoulli(x.reshape(5, 6), vae.likelihood.decoder(z.value).reshape(7, 5, 6))
    assert_close(
        found.log_weights, log_x + parts.logsumexp(-1) - log_normal(z.value, vae.posterior(x))
    )


def enumerated(num_particles):
    return TraceEnum_ELBO(
        num_particles=num_particles, vectorize_particles=True, max_plate_nesting=1
    )


@pytest.mark.parametrize("num_particles", [1, 3])
@pytest.mark.parametrize("guide", ["joint_guide", "guide"])
@pytest.mark.parametrize("configured", [True, False])
def test_enumerating_c_is_summing_it_out(num_particles, guide, configured, vae, x):
    """TraceEnum_ELBO of the joint pair has the loss and gradients of the pair without c, at the
    same z.
    """
    torch.manual_seed(3)
    loss = estimators.ELBO(num_particles).loss_and_grads(vae.model, vae.guide, x)
    summed = gradients(vae)
    joint_guide = getattr(vae, guide)
    if configured:
        joint_guide = config_enumerate(joint_guide)
    torch.manual_seed(3)
    again = enumerated(num_particles).loss_and_grads(vae.joint_model, joint_guide, x)
    assert again == pytest.approx(loss, rel=1e-9)
    for name, gradient in gradients(vae).items():
        assert_close(gradient, summed[name], rtol=1e-7, atol=1e-9, msg=name)


def test_enumerated_bound_by_hand(vae, x):
    """One z: the sum over c of p(c | z) (log p(c) + log p(z | c) + log p(x | z) - log q(z) - log
    p(c | z)).
    """
    torch.manual_seed(3)
    trace = poutine.trace(vae.guide).get_trace(x)
    z = trace.nodes["z"]["value"]
    parts = by_cluster(vae, z)
    share = parts.exp() / parts.exp().sum(-1, keepdim=True)
    log_x = log_bernoulli(x.reshape(5, 6), vae.likelihood.decoder(z).reshape(5, 6))[:, None]
    log_q = log_normal(z, vae.posterior(x))[:, None]
    wanted = (share * (parts + log_x - log_q - share.log())).sum().item()
    torch.manual_seed(3)
    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(
        vae.joint_model, config_enumerate(vae.joint_guide), x
    )
    assert -loss == pytest.approx(wanted, rel=1e-9)


def test_stock_inference_trains_every_parameter(vae, x):
    assert_trains_everything(vae, vae.model, vae.guide, Trace_ELBO(), x)
    guide = config_enumerate(vae.joint_guide)
    assert_trains_everything(vae, vae.joint_model, guide, TraceEnum_ELBO(max_plate_nesting=1), x)
    assert_trains_everything(
        vae, vae.joint_model, vae.guide, TraceEnum_ELBO(max_plate_nesting=1), x
    )


def test_gradients_are_those_of_pyro(vae, x):
    assert_stock_gradients(vae, estimators.ELBO(3), x)


def test_gradients_pass_through_every_draw(vae, x):
    assert_gradient_is_the_slope(vae, x)


@pytest.mark.parametrize("estimator", FITTING, ids=repr)
def test_estimators_reach_every_parameter(estimator, vae, x):
    assert_finite_gradients(vae, vae.model, vae.guide, estimator, x)


def test_estimators_on_the_drawn_class(vae, x):
    assert_finite_gradients(vae, vae.joint_model, vae.joint_guide, estimators.ELBO(4), x)
    assert_finite_gradients(vae, vae.joint_model, vae.joint_guide, estimators.VIMCO(4), x)
    with pytest.raises(ValueError, match="'c'"):
        estimators.IWAE(4).loss(vae.joint_model, vae.joint_guide, x)


def test_closed_form_kl_falls_back_with_a_word(vae, x):
    with pytest.warns(UserWarning, match="'z'"):
        assert_finite_gradients(vae, vae.model, vae.guide, estimators.AnalyticKL(4), x)
    with pytest.raises(ValueError, match="z"):
        estimators.AnalyticKL(4, strict=True).loss(vae.model, vae.guide, x)


def test_evidence_is_the_sum_over_clusters():
    torch.manual_seed(0)
    vae = shaken(
        pv.ClusteringVAE((2,), 1, 3, spread=2.0, likelihood=likelihoods.Gaussian(0.7), **NETS)
    )
    x = vae.sample(6)
    with torch.no_grad():
        weights, scales = (
            vae.prior.logits.softmax(-1),
            torch.nn.functional.softplus(vae.prior.raw_scales),
        )
        scales = scales + vae.prior.min_scale
        truth = 0.0
        for c in range(3):
            normal = pyro.distributions.Normal(vae.prior.locs[c], scales[c]).to_event(1)
            given_c = quadrature(
                lambda normal=normal: normal, vae.likelihood, x, low=-14, high=14, num_points=2801
            )
            truth = truth + weights[c] * given_c.exp()
        truth = truth.log()
    assert_within_error(pv.log_marginal(vae.model, vae.guide, x, num_particles=4000), truth)
    assert_within_error(
        pv.log_marginal(vae.joint_model, vae.joint_guide, x, num_particles=4000), truth
    )
    assert_rises_to(vae, truth, x)


def blobs(num, generator):
    """Three kinds of binary data: one pair of six pixels on, with 3 % of pixels flipped."""
    kind = torch.randint(3, (num,), generator=generator)
    p = 0.03 + 0.94 * torch.eye(3)[kind].repeat_interleave(2, 1)
    return torch.bernoulli(p, generator=generator), kind


def test_training_raises_the_bound():
    torch.manual_seed(0)
    x, _ = blobs(256, torch.Generator().manual_seed(0))
    vae = pv.ClusteringVAE((6,), 2, 3, spread=2.0, **NETS)
    before = estimators.ELBO(20).bound(vae.model, vae.guide, x[192:]).mean()
    history = pv.fit(
        vae.model,
        vae.guide,
        x[:192],
        valid=x[192:],
        epochs=15,
        batch_size=32,
        lr=1e-2,
        device="cpu",
    )
    after = estimators.ELBO(20).bound(vae.model, vae.guide, x[192:]).mean()
    assert after > before + 0.5
    assert abs(after - max(history["valid_bound"])) < 0.3


def test_clusters_are_the_mean_responsibility(vae, x):
    shares = vae.cluster(x, num_samples=4000)
    assert_close(shares.sum(-1), torch.ones(5).double())
    torch.manual_seed(5)
    each = by_cluster(vae, vae.encode(x).sample((4000,))).softmax(-1)
    assert ((shares - each.mean(0)).abs() < 4.5 * 2**0.5 * each.std(0) / 4000**0.5 + 1e-9).all()


def test_a_cluster_draws_its_own_data(vae):
    """E[x | c] by 4,000 draws of the sampler, and by 4,000 of the component written out."""
    torch.manual_seed(0)
    with torch.no_grad():
        for c in range(4):
            found = vae.sample(4000, cluster=c, mean=True).reshape(4000, 6)
            sigma = torch.nn.functional.softplus(vae.prior.raw_scales[c]) + vae.prior.min_scale
            z = vae.prior.locs[c] + sigma * torch.randn(4000, 2).double()
            wanted = vae.likelihood.decoder(z).sigmoid().reshape(4000, 6)
            error = ((found.var(0) + wanted.var(0)) / 4000).sqrt()
            assert ((found.mean(0) - wanted.mean(0)).abs() < 4.5 * error).all()


def test_draws_and_reconstructions(vae, x):
    assert vae.encode(x).batch_shape == (5,)
    assert vae(x).event_shape == (2,)
    z = torch.randn(7, 5, 2).double()
    assert_close(vae.decode(z), vae.likelihood.decoder(z).sigmoid().reshape(7, 5, 2, 3))
    for drawn in (vae.sample(4), vae.sample(4, cluster=2), vae.reconstruct(x, mean=False)):
        assert drawn.shape[1:] == (2, 3)
        assert set(drawn.flatten().tolist()) == {0.0, 1.0}
    assert vae.reconstruct(x).shape == (5, 2, 3)
    assert vae.joint_guide(x).shape == (5,)


def test_wrong_arguments_are_named(vae, x):
    build = pv.ClusteringVAE
    with pytest.raises(ValueError, match="num_clusters"):
        build((4,), 2, 0, **NETS)
    with pytest.raises(ValueError, match="spread"):
        build((4,), 2, 3, spread=-1.0, **NETS)
    with pytest.raises(ValueError, match="lives on the space"):
        build((4,), 3, 3, posterior=posteriors.PowerSpherical(), **NETS)
    with pytest.raises(TypeError, match="likelihood must be"):
        build((4,), 2, 3, likelihood="bernoulli", **NETS)
    for cluster in (4, -1):
        with pytest.raises(ValueError, match=rf"0 ... 3, found {cluster}"):
            vae.sample(2, cluster=cluster)
    for draws in (vae.sample, lambda n: vae.cluster(x, num_samples=n)):
        with pytest.raises(ValueError, match="num_samples"):
            draws(0)
    for program in (vae.model, vae.joint_model, vae.guide, vae.joint_guide):
        with pytest.raises(ValueError, match=r"shape \(B, 2, 3\)"):
            program(x[:, 0])


def test_repr_reads_as_declared(vae):
    text = repr(vae)
    names = {
        "ClusteringVAE": pv.ClusteringVAE,
        **vars(likelihoods),
        **vars(priors),
        **vars(posteriors),
    }
    again = eval(text, {**names, "MLP": MLP})
    assert repr(again) == text
    assert again.num_clusters == 4


def test_copies_are_independent(vae, x):
    assert_copies_are_independent(vae, x)
