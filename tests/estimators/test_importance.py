"""Importance-weighted bounds: short references, reductions, and what other libraries get wrong."""

import itertools
import math
from types import SimpleNamespace
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.gradients import gradient
from torch.testing import assert_close

from pyrovae import weights
from pyrovae.estimators import (
    CIWAE,
    ELBO,
    IWAE,
    MIWAE,
    PIWAE,
    RWS,
    STLIWAE,
    TVO,
    VIMCO,
    DReG,
    Estimator,
    Jackknife,
    Renyi,
    RWSDReG,
)
from pyrovae.testing import LinearGaussian


def name_of(value):
    return repr(value) if isinstance(value, Estimator) else None


def reference_log_weights(oracle, x, num):
    """``(K, B)`` log-weights of the linear Gaussian by its densities alone, with the draws that
    Pyro would make.
    """
    mean, scale = x @ oracle.gain.T + oracle.offset, oracle.log_scale.exp()
    z = mean + scale * torch.randn(num, *mean.shape, dtype=x.dtype)
    log_p = dist.Normal(0.0, 1.0).log_prob(z).sum(-1)
    log_x = (
        dist.Normal(z @ oracle.weight.T + oracle.bias, oracle.log_noise.exp()).log_prob(x).sum(-1)
    )
    return log_p + log_x - dist.Normal(mean, scale).log_prob(z).sum(-1)


def from_reference(formula):
    """A bound written on plain weights, one datum at a time."""
    return lambda log_w: torch.stack([formula(list(column)) for column in log_w.T])


def iwae(ws):
    return torch.stack(ws).exp().mean().log()


def elbo(ws):
    return sum(ws) / len(ws)


def renyi(alpha):
    return lambda ws: torch.stack(ws).exp().pow(1 - alpha).mean().log() / (1 - alpha)


def tvo(ends, upper=False):
    def formula(ws):
        total = 0.0
        for left, right in itertools.pairwise(ends):
            tilt = torch.stack(ws).exp() ** (right if upper else left)
            total = total + (right - left) * (tilt * torch.stack(ws)).sum() / tilt.sum()
        return total

    return formula


def jackknife(order):
    def formula(ws):
        total, num = 0.0, len(ws)
        for j in range(order + 1):
            subsets = [iwae(list(subset)) for subset in itertools.combinations(ws, num - j)]
            weight = (
                (-1) ** j * (num - j) ** order / (math.factorial(order - j) * math.factorial(j))
            )
            total = total + weight * sum(subsets) / len(subsets)
        return total

    return formula


ENDS = (0.0, 0.2, 0.5, 1.0)
REFERENCES = [
    (IWAE(6), 6, iwae),
    (CIWAE(0.3, 6), 6, lambda ws: 0.3 * elbo(ws) + 0.7 * iwae(ws)),
    (MIWAE(2, 3), 6, lambda ws: (iwae(ws[:3]) + iwae(ws[3:])) / 2),
    (PIWAE(2, 3), 6, iwae),
    (Renyi(0.5, 6), 6, renyi(0.5)),
    (Renyi(-1.0, 6), 6, renyi(-1.0)),
    (Renyi(3.0, 6), 6, renyi(3.0)),
    (Renyi(-math.inf, 6), 6, max),
    (Renyi(math.inf, 6), 6, min),
    (Jackknife(1, 6), 6, jackknife(1)),
    (Jackknife(2, 6), 6, jackknife(2)),
    (Jackknife(3, 6), 6, jackknife(3)),
    (TVO(6, partition=ENDS), 6, tvo(ENDS)),
    (TVO(6, partition=ENDS, upper=True), 6, tvo(ENDS, upper=True)),
]


@pytest.mark.parametrize(("estimator", "num", "formula"), REFERENCES, ids=name_of)
def test_bound_equals_a_short_reference_under_the_same_draws(estimator, num, formula, spoilt):
    oracle, x = spoilt
    torch.manual_seed(3)
    found = estimator.bound(oracle.model, oracle.guide, x)
    torch.manual_seed(3)
    assert_close(found, from_reference(formula)(reference_log_weights(oracle, x, num)).detach())


@pytest.mark.parametrize(
    ("estimator", "num", "formula"),
    [
        row for row in REFERENCES if not isinstance(row[0], (PIWAE, TVO))
    ],  # their gradients are no bound's
    ids=name_of,
)
def test_gradient_equals_that_of_the_reference(estimator, num, formula, spoilt):
    oracle, x = spoilt
    torch.manual_seed(3)
    found = gradient(oracle, estimator.differentiable_loss(oracle.model, oracle.guide, x))
    torch.manual_seed(3)
    reference = from_reference(formula)(reference_log_weights(oracle, x, num)).sum()
    assert_close(found, -gradient(oracle, reference))


def both(oracle, x, *estimators):
    """Bound and gradient of each estimator under the same draws."""
    for estimator in estimators:
        torch.manual_seed(5)
        bound = estimator.bound(oracle.model, oracle.guide, x)
        torch.manual_seed(5)
        yield (
            bound,
            gradient(oracle, estimator.differentiable_loss(oracle.model, oracle.guide, x)),
        )


IDENTITIES = [
    (IWAE(1), ELBO(1)),
    (CIWAE(1.0, 6), ELBO(6)),
    (CIWAE(0.0, 6), IWAE(6)),
    (Renyi(1.0, 6), ELBO(6)),
    (Renyi(0.0, 6), IWAE(6)),
    (Renyi(0.7, 1), ELBO(1)),
    (MIWAE(6, 1), ELBO(6)),
    (MIWAE(1, 6), IWAE(6)),
    (PIWAE(1, 6), IWAE(6)),
    (PIWAE(1, 1), ELBO(1)),
    (Jackknife(0, 6), IWAE(6)),
]


@pytest.mark.parametrize(("left", "right"), IDENTITIES, ids=repr)
def test_identities_of_bounds_and_gradients(left, right, spoilt):
    (bound_a, grad_a), (bound_b, grad_b) = both(*spoilt, left, right)
    assert_close(bound_a, bound_b)
    assert_close(grad_a, grad_b)


def test_miwae_is_not_the_bound_of_swapped_arguments(spoilt):
    """One library's MIWAE(1, 50) is the plain ELBO."""
    (one, _), (swapped, _), (elbo, _) = both(*spoilt, MIWAE(1, 50), MIWAE(50, 1), ELBO(50))
    assert_close(swapped, elbo)
    assert (one > elbo + 0.01).all()


@pytest.mark.parametrize("near", [1 - 1e-6, 1 + 1e-6])
def test_renyi_tends_to_the_elbo(near, spoilt):
    (bound_a, grad_a), (bound_b, grad_b) = both(*spoilt, Renyi(near, 6), ELBO(6))
    # The bound moves by |1 - alpha| times half the variance of log w, which is of order one here.
    assert_close(bound_a, bound_b, rtol=0, atol=1e-5)
    assert_close(grad_a, grad_b, rtol=0, atol=1e-4)


def test_renyi_falls_as_alpha_rises(spoilt):
    alphas = (-math.inf, -2.0, -0.5, 0.0, 0.5, 1.0, 2.0, math.inf)
    bounds = torch.stack(
        [bound for bound, _ in both(*spoilt, *(Renyi(alpha, 20) for alpha in alphas))]
    )
    assert (bounds.diff(dim=0) < 0).all()


def test_iwae_rises_with_particles_to_the_evidence():
    oracle = LinearGaussian(shift=1.0, stretch=1.5)
    x = oracle.sample(1).expand(2_000, -1)
    truth = oracle.log_prob(x[:1]).item()
    torch.manual_seed(0)
    bounds = [IWAE(k).bound(oracle.model, oracle.guide, x) for k in (1, 4, 16, 64)]
    means = torch.stack([b.mean() for b in bounds])
    errors = torch.stack([b.std() for b in bounds]) / 2_000**0.5
    gaps = means.diff()
    assert (gaps > 4 * (errors[1:] ** 2 + errors[:-1] ** 2).sqrt())[:2].all()
    assert means[0] < truth - 0.5
    assert (
        abs(means[-1] - truth) < 4 * errors[-1] + 0.02
    )  # the bias of K = 64 is near var(w) / (2 K)


def test_reported_bound_is_no_weighted_mean_of_log_weights(spoilt):
    """The sum of normalised weight times log w, reported elsewhere as IWAE, always lies above the
    bound.
    """
    oracle, x = spoilt
    particles = IWAE(20).particles(oracle.model, oracle.guide, x)
    weighted = (particles.log_weights.softmax(0) * particles.log_weights).sum(0)
    assert (IWAE(20).terms(particles).bound < weighted).all()


def test_the_best_particle_weighs_most(spoilt):
    """A softmax over positive losses, met elsewhere, gives the worst particle
    most of the gradient.
    """
    oracle, x = spoilt
    particles = IWAE(5).particles(oracle.model, oracle.guide, x)
    log_w = particles.log_weights.detach().requires_grad_()
    object.__setattr__(particles, "log_likelihood", log_w - particles.log_prior + particles.log_q)
    (share,) = torch.autograd.grad(IWAE(5).terms(particles).objective.sum(), log_w)
    assert_close(share, log_w.softmax(0))
    assert (share.argmax(0) == log_w.argmax(0)).all()


def test_piwae_takes_each_gradient_from_its_own_bound(spoilt):
    oracle, x = spoilt
    (_, found), (_, wide), (_, grouped) = both(oracle, x, PIWAE(3, 2), IWAE(6), MIWAE(3, 2))
    model = sum(p.numel() for p in (oracle.weight, oracle.bias, oracle.log_noise))
    assert_close(found[:model], wide[:model])
    assert_close(found[model:], grouped[model:])


def test_one_interval_is_the_elbo_and_fine_ends_approach_iwae(spoilt):
    (one, _), (elbo, _) = both(*spoilt, TVO(6, partition=1), ELBO(6))
    assert_close(one, elbo)
    fine = tuple(i / 2_000 for i in range(2_001))
    (low, _), (high, _), (iwae, _) = both(
        *spoilt, TVO(6, partition=fine), TVO(6, partition=fine, upper=True), IWAE(6)
    )
    # The integral over beta of the self-normalised mean of log w is log mean w, for the same draws.
    assert (low < iwae).all()
    assert (iwae < high).all()
    assert_close((low + high) / 2, iwae, rtol=0, atol=1e-6)


def test_tvo_is_below_the_evidence_and_its_upper_sum_above():
    oracle = LinearGaussian(shift=0.7, stretch=1.2)
    x = oracle.sample(4)
    torch.manual_seed(0)
    low = TVO(20_000).bound(oracle.model, oracle.guide, x)
    high = TVO(20_000, upper=True).bound(oracle.model, oracle.guide, x)
    assert (low < oracle.log_prob(x)).all()
    assert (high > oracle.log_prob(x)).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CIWAE(1.2), r"\[0, 1\]"),
        (lambda: Renyi(math.nan), "nan"),
        (lambda: MIWAE(0, 5), "num_bounds >= 1"),
        (lambda: IWAE(0), "num_particles >= 1"),
        (lambda: TVO(1), "num_particles >= 2"),
        (lambda: TVO(partition=(0.0, 0.6, 0.4, 1.0)), "increase from 0 to 1"),
        (lambda: TVO(partition=(0.1, 1.0)), "increase from 0 to 1"),
        (lambda: TVO(first=0.0), "0 < first < 1"),
        (lambda: TVO(2).with_draws(1), "num_particles >= 2"),
        (lambda: Jackknife(-1), "order >= 0"),
        (lambda: Jackknife(2, 2), "num_particles >= 3"),
        (lambda: MIWAE(4, 5).with_draws(10), "multiple of 4"),
    ],
)
def test_arguments_out_of_range_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("order", [1, 2])
def test_jackknife_equals_the_streamed_one(order, spoilt):
    oracle, x = spoilt
    estimator = Jackknife(order, 12)
    particles = estimator.particles(oracle.model, oracle.guide, x)
    streamed = weights.jackknife(particles.log_weights.detach(), order)
    assert_close(estimator.terms(particles).bound.detach(), streamed)


def test_bias_falls_faster_with_particles_for_the_jackknife():
    """Like 1 / K for IWAE and 1 / K^2 for order 1: twice the particles leave about a half and a
    quarter.
    """
    oracle = LinearGaussian(stretch=1.5)  # a wide guide bounds the weights
    x = oracle.sample(1).expand(20_000, -1)
    truth = oracle.log_prob(x[:1]).item()
    torch.manual_seed(0)

    def bias(order, num):
        rounds = [
            Jackknife(order, num).bound(oracle.model, oracle.guide, x).mean().item()
            for _ in range(20)
        ]
        return sum(rounds) / 20 - truth

    # The errors of the four biases are near 0.0006, 0.0004, 0.0006, 0.0004; the smallest bias is
    # near 0.003.
    assert bias(0, 4) / bias(0, 8) == pytest.approx(2.2, abs=0.3)
    assert bias(1, 4) / bias(1, 8) > 3.5


@pytest.mark.parametrize(
    "estimator",
    [
        *(RWS(60), VIMCO(60), TVO(60, partition=2, upper=True)),
        *(DReG(60), STLIWAE(60), RWSDReG(60), IWAE(60), PIWAE(2, 30), CIWAE(0.0, 60)),
        *(Jackknife(1, 60), Jackknife(2, 60)),
    ],
    ids=repr,
)
def test_impossible_draws_count_nothing(estimator):
    """As draws do whose weight is too small for double precision."""
    center = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def model(floor):
        with pyro.plate("data", 5):
            z = pyro.sample("z", dist.Normal(center.new_zeros(()), 1.0))
            pyro.factor("x", torch.where(z.abs() < 0.7, center - z, floor))

    def guide(floor):
        with pyro.plate("data", 5):
            pyro.sample("z", dist.Normal(center, 1.0))

    found = []
    for floor in (-math.inf, -2000.0):
        torch.manual_seed(0)
        loss = estimator.differentiable_loss(model, guide, center.new_tensor(floor))
        found.append((loss.detach(), torch.autograd.grad(loss, center)[0]))
    assert_close(found[0], found[1])


def test_vimco_where_all_others_are_impossible():
    """Then their mean makes no baseline, and zero stands in."""
    log_w = torch.tensor([[0.7], [-math.inf], [-math.inf]], dtype=torch.float64)
    score = torch.zeros_like(log_w, requires_grad=True)
    spoilt: Any = SimpleNamespace(
        log_weights=log_w, num_particles=3, log_q=score, log_auxiliary=torch.zeros_like(log_w)
    )
    VIMCO(3).terms(spoilt).objective.sum().backward()
    bound = 0.7 - math.log(3)  # for an impossible draw, the others make the same bound
    assert_close(score.grad, torch.tensor([[bound], [0.0], [0.0]], dtype=torch.float64))


def test_with_draws_keeps_groups_and_the_original():
    grouped = MIWAE(4, 5)
    other = grouped.with_draws(32)
    assert (other.num_bounds, other.num_particles, other.num_draws) == (4, 8, 32)
    assert repr(other) == "MIWAE(num_particles=8)"  # four bounds are the default
    assert grouped.num_draws == 20
    assert IWAE(3).with_draws(7).num_draws == 7
