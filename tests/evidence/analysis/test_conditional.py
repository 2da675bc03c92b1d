"""Refinement, defence, convergence in K, and evidence of a part of x, against exact values."""

import math
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae import likelihoods
from pyrovae.evidence import ImportanceSampling, convergence, impute, log_marginal, observe_part
from pyrovae.testing import DiscreteMixture, LinearGaussian

SPOILED = LinearGaussian(latent_dim=3, shift=1.0, stretch=1.5)


def exact(oracle, x) -> np.ndarray:
    return oracle.log_prob(x).detach().numpy()


# --- a better proposal
# --------------------------------------------------------------------------------------------


def test_refinement_gains_what_amortisation_lost():
    x = SPOILED.sample(50)
    method = ImportanceSampling(200, refine_steps=120)
    evidence = log_marginal(SPOILED.model, SPOILED.guide, x, method=method)
    # The posterior is a diagonal Gaussian here: the whole KL(q || p) is the encoder's.
    kl = SPOILED.kl_to_posterior(x).detach().numpy()
    assert float(evidence.refinement_gain.mean()) == pytest.approx(
        kl.mean(), abs=0.15
    )  # 64 draws each
    plain = log_marginal(SPOILED.model, SPOILED.guide, x, num_particles=200)
    assert float(evidence.ess.median()) > 2 * float(plain.ess.median())
    scores = (evidence.log_marginal - exact(SPOILED, x)) / evidence.standard_error
    assert float(abs(scores).max()) < 4.5
    cut = log_marginal(SPOILED.model, SPOILED.guide, x[7:9], method=method, memory_budget=100_000)
    np.testing.assert_allclose(cut.log_marginal, evidence.log_marginal[7:9], rtol=1e-8)


def test_refined_data_may_get_more_particles():
    method = ImportanceSampling(
        50, refine_steps=60, target_standard_error=0.02, max_particles=20_000
    )
    x = SPOILED.sample(30)
    evidence = log_marginal(SPOILED.model, SPOILED.guide, x, method=method)
    assert len(evidence.missed_target()) == 0
    assert evidence.num_particles.max() > 50
    share = (
        evidence.ess / evidence.num_particles
    )  # all of them from the refined guide, of which most draws count
    assert float(share.min()) > 0.5
    scores = (evidence.log_marginal - exact(SPOILED, x)) / evidence.standard_error
    assert float(abs(scores).max()) < 4.5


def test_prior_share_defends_against_a_narrow_guide():
    oracle = LinearGaussian(latent_dim=1, shift=1.0, stretch=0.3)
    x = oracle.sample(60)
    plain = log_marginal(oracle.model, oracle.guide, x, num_particles=2000)
    mixed = log_marginal(
        oracle.model, oracle.guide, x, method=ImportanceSampling(2000, prior_share=0.3)
    )
    assert plain.share_flagged > 0.6  # 0.75 to 0.92 over sixteen seeds
    # Weights are bounded now: no tail, and errors that say what they are.
    assert mixed.share_flagged < 0.1
    scores = (mixed.log_marginal - exact(oracle, x)) / mixed.standard_error
    assert float(abs(scores).max()) < 4.5
    np.testing.assert_allclose(
        log_marginal(
            oracle.model,
            oracle.guide,
            x,
            method=ImportanceSampling(2000, prior_share=0.3),
            memory_budget=50_000,
        ).log_marginal,
        mixed.log_marginal,
        rtol=1e-9,
    )


def test_a_mixture_of_proposals_is_unbiased():
    oracle = LinearGaussian(shift=1.0)
    x = oracle.sample(1).repeat(3000, 1)
    evidence = log_marginal(
        oracle.model, oracle.guide, x, method=ImportanceSampling(5, prior_share=0.4)
    )
    ratio = np.exp(evidence.log_marginal.values - exact(oracle, x))
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(3000)


def test_refuses_what_cannot_be_refined():
    mixture = DiscreteMixture()
    with pytest.raises(ValueError, match="no Gaussian"):
        log_marginal(
            mixture.model,
            mixture.guide,
            mixture.sample(2),
            method=ImportanceSampling(5, refine_steps=2),
        )
    with pytest.raises(ValueError, match="prior_share"):
        ImportanceSampling(5, prior_share=1.0)
    with pytest.raises(ValueError, match="fixed number"):
        ImportanceSampling(5, prior_share=0.5, target_standard_error=0.1)
    with pytest.raises(ValueError, match="upper bound"):
        pv.evidence.bdmc(
            SPOILED.model, SPOILED.guide, num_data=2, method=ImportanceSampling(5, refine_steps=2)
        )


# --- convergence in K
# ---------------------------------------------------------------------------------------------


def test_estimates_rise_with_k_to_the_truth():
    oracle = LinearGaussian(shift=0.5, stretch=1.3)
    x = oracle.sample(200)
    found = convergence(oracle.model, oracle.guide, x, num_particles=(1, 8, 64, 512))
    means = found.dataset["mean"].values
    truth = exact(oracle, x).mean()
    elbo = truth - oracle.kl_to_posterior(x).mean().item()
    assert means[0] == pytest.approx(elbo, abs=0.02)  # 102,400 draws
    assert (np.diff(means) > 0).all()
    assert means[-1] < truth + 0.005
    limit, exponent = found.extrapolate()
    assert abs(limit - truth) < abs(means[-2] - truth)
    assert exponent == pytest.approx(1.0, abs=0.4)  # finite variance: the bias falls like 1 / K
    cut = convergence(
        oracle.model, oracle.guide, x, num_particles=(1, 8, 64, 512), memory_budget=200_000
    )
    np.testing.assert_allclose(cut.dataset["mean"], means, rtol=1e-10)


def test_convergence_refuses_and_draws(tmp_path):
    oracle = LinearGaussian(shift=0.5)
    with pytest.raises(ValueError, match="must rise"):
        convergence(oracle.model, oracle.guide, oracle.sample(2), num_particles=(10, 1))
    found = convergence(oracle.model, oracle.guide, oracle.sample(2), num_particles=(1, 3, 30))
    with pytest.raises(ValueError, match="equal ratios"):
        found.extrapolate()
    pytest.importorskip("matplotlib").use("Agg")
    axes = found.plot()
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [1, 3, 30])


# --- a part of x
# --------------------------------------------------------------------------------------------------


def some(num_data: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    mask = torch.rand(num_data, width, generator=generator) < 0.6
    mask[0] = True
    mask[1] = False
    return mask


def covariance(oracle) -> torch.Tensor:
    noise = oracle.log_noise.exp().square() * torch.eye(len(oracle.bias), dtype=torch.float64)
    return (oracle.weight @ oracle.weight.T + noise).detach()


def test_evidence_of_a_part_of_a_gaussian():
    oracle = LinearGaussian()
    x, mask = oracle.sample(12), some(12, 5)
    truth = []
    for row, seen in zip(x, mask, strict=True):
        if seen.any():
            part = dist.MultivariateNormal(oracle.bias[seen], covariance(oracle)[seen][:, seen])
            truth.append(part.log_prob(row[seen]).item())
        else:
            truth.append(0.0)
    spoiled = torch.where(mask, x, torch.full_like(x, 77.0))  # what is missing must not matter
    method = ImportanceSampling(
        8000, prior_share=0.3
    )  # the guide is too sure of itself where x has gaps
    results = [
        log_marginal(*observe_part(oracle.model, oracle.guide), (data, mask), method=method)
        for data in (x, spoiled)
    ]
    for evidence in results:
        scores = (evidence.log_marginal - truth) / evidence.standard_error
        assert float(abs(scores).max()) < 4.5


def test_evidence_of_a_part_of_discrete_data():
    oracle = DiscreteMixture()
    x, mask = oracle.sample(12), some(12, 6)
    log_x = dist.Bernoulli(logits=oracle.pixel_logits[:, None]).log_prob(x)  # (C, B, 6)
    log_joint = oracle.class_logits.log_softmax(-1)[:, None] + (log_x * mask).sum(-1)
    truth = log_joint.logsumexp(0).detach().numpy()
    programs = observe_part(oracle.model, oracle.guide)
    evidence = log_marginal(*programs, (x, mask), method=ImportanceSampling(4000, enumerate=False))
    scores = (evidence.log_marginal - truth) / (evidence.standard_error + 1e-9)
    assert float(abs(scores).max()) < 4.5
    summed = log_marginal(*programs, (x, mask))
    np.testing.assert_allclose(summed.log_marginal, truth, rtol=1e-12, atol=1e-12)


def test_values_that_a_program_notes_are_no_part_of_x():
    """As much as x in shape, the mean is not hidden with it."""
    x, mask = torch.randn(4, 3, dtype=torch.float64), torch.tensor([True, False, True])

    def model(x, note):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
            z = pyro.deterministic("mean", z, event_dim=1) if note else z
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5).to_event(1))

    one, other = (
        log_marginal(*observe_part(partial(model, note=note), guide), (x, mask.expand(4, 3)))
        for note in (True, False)
    )
    np.testing.assert_array_equal(one.log_marginal, other.log_marginal)


def test_parts_of_a_vae_and_refusals():
    torch.manual_seed(0)
    vae = pv.VAE((2, 3), 2, likelihood=likelihoods.Bernoulli()).double()
    x = vae.sample(4)
    programs = observe_part(vae.model, vae.guide)
    whole = log_marginal(*programs, (x, torch.ones_like(x, dtype=torch.bool)), num_particles=500)
    plain = log_marginal(vae.model, vae.guide, x, num_particles=500)
    np.testing.assert_allclose(
        whole.log_marginal, plain.log_marginal, atol=6 * float(plain.standard_error.max())
    )
    with pytest.raises(ValueError, match="mask has shape"):
        log_marginal(*programs, (x, torch.ones(4, 3, dtype=torch.bool)), num_particles=5)


def test_imputation_refuses_data_that_no_draw_explains():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            z = z.unsqueeze(-1).expand(*z.shape, 2)
            pyro.sample("x", dist.Uniform(z - 1, z + 1, validate_args=False).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    x, mask = torch.tensor([[0.5, 0.0], [50.0, 0.0]]), torch.tensor([[True, False]] * 2)
    with pytest.raises(ValueError, match="observed of datum 1"):
        impute(model, guide, x, mask, num_particles=50)


def test_imputations_are_draws_from_the_conditional():
    oracle = LinearGaussian()
    x = oracle.sample(1).repeat(3000, 1)
    seen = torch.tensor([True, False, True, True, False])
    found = impute(
        oracle.model, oracle.guide, x, seen.repeat(3000, 1), num_draws=2, num_particles=400
    )
    assert found.draws.shape == (2, 3000, 5)
    assert torch.equal(found.draws[:, :, seen], x[:, seen].expand(2, 3000, 3))
    # The Gaussian's conditional mean and covariance.
    full, known, gone = covariance(oracle), seen, ~seen
    gain = full[gone][:, known] @ torch.linalg.inv(full[known][:, known])
    mean = oracle.bias.detach()[gone] + gain @ (x[0, known] - oracle.bias.detach()[known])
    rest = full[gone][:, gone] - gain @ full[known][:, gone]
    draws = found.draws[:, :, gone].reshape(-1, 2)
    error = (rest.diagonal() / len(draws)).sqrt()
    # Four standard errors, and the bias of resampling from 400 particles of a guide that sees zeros
    # in the gaps.
    assert ((draws.mean(0) - mean).abs() < 4 * error + 0.05).all()
    np.testing.assert_allclose(torch.cov(draws.T), rest, atol=0.1 * float(rest.diagonal().max()))
    assert (found.ess > 1).all()
