"""Any number of stochastic layers, by three guides: exact p(x) of a linear model, grids, the
ladder's formula, and Pyro's own inference.
"""

import math

import pyro.distributions as dist
import pytest
import torch
from helpers.models import (
    assert_copies_are_independent,
    assert_finite_gradients,
    assert_gradient_is_the_slope,
    assert_stock_gradients,
    assert_trains_everything,
    assert_within_error,
    log_normal,
    shaken,
)
from pyro.infer import Trace_ELBO
from torch.testing import assert_close

import pyrovae as pv
from pyrovae import estimators, likelihoods, nets, posteriors, priors
from pyrovae.models.layers import merge
from pyrovae.nets import MLP
from pyrovae.particles import draw

GUIDES = ["top-down", "bottom-up", "ladder"]
# Draws from the prior, too: these guides are far from the posterior.
DEFENDED = pv.ImportanceSampling(20_000, prior_share=0.5)
NETS = {"encoder": MLP(8), "decoder": MLP(8), "between": MLP(8), "features": 6}


def deep(inference, dims=(3, 2, 2), **options):
    torch.manual_seed(0)
    return shaken(pv.HierarchicalVAE((5,), dims, inference=inference, **(NETS | options)))


def some(vae, num=5):
    torch.manual_seed(1)
    return vae.sample(num)


def linear(inference, decoder_sees):
    """Every conditional and the decoder linear, with scales that depend on nothing."""
    linear = {"encoder": MLP(), "decoder": MLP(), "between": MLP(), "features": 4}
    vae = deep(inference, likelihood=likelihoods.Gaussian(0.6), decoder_sees=decoder_sees, **linear)
    with torch.no_grad():
        for conditional in vae.conditionals:
            net = conditional.encoder.net[-1]
            net.weight[len(net.weight) // 2 :] = 0.0
    return vae


def exact(vae, x):
    """log p(x) of a linear model: all layers are jointly normal."""
    (*_, top) = vae.latent_dims
    mean, covariance = torch.zeros(top).double(), torch.eye(top).double()
    for conditional in reversed(vae.conditionals):  # z_{n+1} first among those seen so far
        net = conditional.encoder.net[-1]
        low = len(net.weight) // 2
        weight, scale = net.weight[:low], conditional(torch.zeros(net.in_features).double()).stddev
        wide = torch.zeros(low, len(mean)).double()
        wide[:, : weight.shape[1]] = weight
        cross = wide @ covariance
        mean = torch.cat([wide @ mean + net.bias[:low], mean])
        covariance = torch.cat(
            [
                torch.cat([cross @ wide.T + scale.square().diag(), cross], 1),
                torch.cat([cross.T, covariance], 1),
            ]
        )
    out = vae.likelihood.decoder.net[-1]
    seen = out.in_features
    cover = out.weight @ covariance[:seen, :seen] @ out.weight.T + 0.36 * torch.eye(5).double()
    centre = out.weight @ mean[:seen] + out.bias
    return dist.MultivariateNormal(centre, cover).log_prob(x).detach()


@pytest.mark.parametrize("decoder_sees", ["all", "lowest"])
@pytest.mark.parametrize("inference", GUIDES)
def test_linear_layers_have_an_exact_evidence(inference, decoder_sees):
    vae = linear(inference, decoder_sees)
    x = some(vae, 4)
    evidence = pv.log_marginal(vae.model, vae.guide, x, method=DEFENDED)
    assert_within_error(evidence, exact(vae, x))


@pytest.mark.parametrize("inference", GUIDES)
def test_p_of_all_data_adds_up_to_one(inference):
    """By a grid over three layers of one dimension, and the same by importance sampling."""
    torch.manual_seed(0)
    vae = shaken(pv.HierarchicalVAE((3,), (1, 1, 1), inference=inference, **NETS))
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 3)
    t = torch.linspace(-9, 9, 61).double()
    z = torch.cartesian_prod(t, t, t)
    z1, z2, z3 = z[:, :1], z[:, 1:2], z[:, 2:]
    with torch.no_grad():
        log_p = (
            vae.prior().log_prob(z3)
            + vae.conditionals[1](z3).log_prob(z2)
            + vae.conditionals[0](z2).log_prob(z1)
        )
        log_x = torch.stack(
            [vae.likelihood(torch.cat([z1, z2, z3], -1)).log_prob(x) for x in every]
        )
    truth = (log_p + log_x).logsumexp(-1) + 3 * (t[1] - t[0]).log()
    assert truth.exp().sum().item() == pytest.approx(1, abs=1e-3)
    found = pv.log_marginal(vae.model, vae.guide, every, method=DEFENDED)
    error = abs(found.debiased.values - truth.numpy())
    assert (error < 4.5 * found.standard_error.values + 1e-3).all()


def test_a_ladder_weighs_by_precision():
    vae = deep("ladder")
    x = some(vae)
    found = draw(vae.model, vae.guide, 7, (x,))
    assert list(found.latents) == ["z3", "z2", "z1"]
    values = [found.latents[f"z{n}"].value for n in (1, 2, 3)]
    seen, features = [], x
    for step in vae.posteriors.first.steps:
        features = step(features).clamp(min=0)
        seen.append(features)
    top = log_normal(values[2], vae.posteriors.first.head(seen[2]))
    assert_close(found.latents["z3"].log_q, top)
    for n in (1, 2):
        above = vae.conditionals[n - 1](values[n]).base_dist
        below = vae.posteriors.heads[n - 1](seen[n - 1]).base_dist
        precision = above.scale**-2 + below.scale**-2
        mean = (above.loc * above.scale**-2 + below.loc * below.scale**-2) / precision
        wanted = dist.Normal(mean, precision**-0.5).log_prob(values[n - 1]).sum(-1)
        assert_close(found.latents[f"z{n}"].log_q, wanted)


def test_merged_normals_are_the_product():
    one, two = (dist.Normal(torch.randn(3), torch.rand(3) + 0.5).to_event(1) for _ in range(2))
    z = torch.randn(2, 3)
    product = one.log_prob(z) + two.log_prob(z)
    merged = merge(one, two).log_prob(z)
    assert_close(merged[0] - merged[1], product[0] - product[1])


@pytest.mark.parametrize("inference", GUIDES)
def test_it_is_a_program_like_any_other(inference):
    vae = deep(inference)
    x = some(vae)
    assert [z.shape for z in vae.guide(x)] == [(5, 3), (5, 2), (5, 2)]
    assert_trains_everything(vae, vae.model, vae.guide, Trace_ELBO(), x)
    for num_particles in (1, 3):
        assert_stock_gradients(vae, estimators.ELBO(num_particles), x)
    assert_gradient_is_the_slope(vae, x)
    for estimator in (estimators.IWAE(4), estimators.DReG(4), estimators.STL(4)):
        assert_finite_gradients(vae, vae.model, vae.guide, estimator, x)


@pytest.mark.parametrize("inference", ["top-down", "ladder"])
def test_every_layer_has_a_closed_kl_in_the_models_order(inference):
    vae = deep(inference)
    x = some(vae)
    analytic = estimators.AnalyticKL(4000, strict=True)
    torch.manual_seed(0)
    ours = analytic.bound(vae.model, vae.guide, x)
    weights = draw(vae.model, vae.guide, 4000, (x,)).log_weights.detach()
    error = weights.std(0) / 4000**0.5
    assert ((ours - weights.mean(0)).abs() < 4.5 * 2**0.5 * error).all()


@pytest.mark.parametrize("prior", ["Vamp", "Exemplar"])
@pytest.mark.parametrize("inference", ["top-down", "ladder"])
def test_mixtures_of_posteriors_go_on_top(inference, prior):
    vae = deep(inference, prior=priors.Vamp(3) if prior == "Vamp" else priors.Exemplar())
    x = torch.rand(6, 5).double().round()
    if prior == "Exemplar":
        vae.initialize_from(x).eval()
    site = draw(vae.model, vae.guide, 5, (x,)).latents["z3"]
    if prior == "Vamp":
        each = [log_normal(site.value, vae.encode(u[None])) for u in vae.prior.pseudo_inputs()]
    else:
        scale = vae.prior.raw_scale.exp()
        each = [
            dist.Normal(mean, scale).log_prob(site.value).sum(-1) for mean in vae.encode(x).mean
        ]
    assert_close(site.log_p, torch.stack(each).logsumexp(0) - math.log(len(each)))


@pytest.mark.parametrize("inference", GUIDES)
def test_images_go_through_convolutions(inference):
    torch.manual_seed(0)
    conv = nets.Conv(4, hidden=8)
    vae = pv.HierarchicalVAE(
        (8, 8), (3, 2, 2), inference=inference, encoder=conv, decoder=conv, between=MLP(8)
    )
    x = torch.rand(12, 8, 8).round()
    history = vae.fit(x, epochs=2, batch_size=4, device="cpu")
    assert len(history) == 2
    assert vae.sample(4).shape == vae.reconstruct(x[:4]).shape == (4, 8, 8)
    assert_copies_are_independent(vae.double(), x.double())


def test_reconstructions_follow_the_guide():
    """The mean of many reconstructions is that of decoded draws of the guide."""
    vae = deep("ladder", decoder_sees="lowest")
    x = some(vae, 2)
    torch.manual_seed(0)
    many = torch.stack([vae.reconstruct(x) for _ in range(400)])
    drawn = torch.stack([vae.decode(*vae.guide(x)) for _ in range(400)]).detach()
    error = (many.var(0) / 400 + drawn.var(0) / 400).sqrt()
    assert ((many.mean(0) - drawn.mean(0)).abs() < 5 * error).all()


def test_wrong_arguments_are_named():
    build = pv.HierarchicalVAE
    with pytest.raises(ValueError, match="inference must be one of top-down, bottom-up, ladder"):
        build(4, (2, 2, 2), inference="sideways")
    with pytest.raises(ValueError, match="decoder_sees"):
        build(4, (2, 2, 2), decoder_sees="none")
    with pytest.raises(ValueError, match=r"merges normals .* posterior must be"):
        build(4, (2, 2), inference="ladder", posterior=posteriors.FullRankNormal())
    with pytest.raises(ValueError, match=r"merges normals .* conditional must be"):
        build(4, (2, 2), inference="ladder", conditional=posteriors.FullRankNormal())
    with pytest.raises(ValueError, match="Vamp is a mixture of posteriors"):
        build(4, (2, 2), inference="bottom-up", prior=priors.Vamp(3))
    with pytest.raises(ValueError, match=r"p\(z1 \| z2\) must have a density"):
        build(4, (3, 2, 2), conditional=posteriors.Delta())
