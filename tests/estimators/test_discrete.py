"""Estimators of discrete sites, against sums over every outcome of every particle."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.gradients import TwoLayers, assert_within, exact_elbo, gradient, spread
from torch import nn
from torch.testing import assert_close

import pyrovae as pv
from pyrovae.estimators import RWS, TVO, VIMCO, ScoreELBO
from pyrovae.estimators.base import Estimator
from pyrovae.testing import DiscreteMixture, LinearGaussian
from pyrovae.weights import leave_one_out, log_mean_exp


def outcomes(oracle, x, num):
    """Every assignment of ``num`` particles: log p, log q ``(outcomes, num, B)`` and probability
    ``(outcomes, B)``.
    """
    log_p, log_q = oracle.log_joint(x), oracle.log_guide(x)
    index = torch.tensor(list(itertools.product(range(len(log_p)), repeat=num)))
    return log_p[index], log_q[index], log_q[index].sum(1).exp()


def expected_bound(oracle, x, num):
    log_p, log_q, probability = outcomes(oracle, x, num)
    return (probability * log_mean_exp(log_p - log_q, 1)).sum(0)


@pytest.mark.parametrize("estimator", [VIMCO(3), RWS(3)], ids=repr)
def test_reported_bound_has_the_enumerated_mean(estimator, mixture):
    oracle, x = mixture
    many = x.repeat(20_000, 1)
    torch.manual_seed(0)
    found = estimator.bound(oracle.model, oracle.guide, many).reshape(20_000, -1)
    assert_within(found.mean(0), found.std(0) / 20_000**0.5, expected_bound(oracle, x, 3).detach())


@pytest.mark.parametrize("num_particles", [2, 3])
def test_vimco_has_the_enumerated_gradient_of_iwae(num_particles, mixture):
    oracle, x = mixture
    mean, error = spread(VIMCO(num_particles), oracle, x, copies=1_000)
    assert_within(mean, error, gradient(oracle, expected_bound(oracle, x, num_particles).sum()))


def test_vimco_learning_signal_follows_its_formula(mixture):
    oracle, x = mixture
    estimator = VIMCO(4)
    particles = estimator.particles(oracle.model, oracle.guide, x)
    log_w = particles.log_weights.detach()
    objective = estimator.terms(particles).objective
    site = particles.latents["c"]
    (found,) = torch.autograd.grad(objective.sum(), site.log_q)
    expected = torch.empty_like(log_w)
    for k in range(4):
        others = [log_w[j] for j in range(4) if j != k]
        stand_in = sum(others) / 3
        without = torch.stack([*others, stand_in]).exp().mean(0).log()
        expected[k] = (
            log_w.exp().mean(0).log() - without - log_w.softmax(0)[k]
        )  # the last is of log w itself
    assert_close(found, expected)


@pytest.mark.parametrize("num_particles", [1, 4])
def test_score_elbo_has_the_enumerated_gradient(num_particles, mixture):
    oracle, x = mixture
    log_q = oracle.log_guide(x)
    exact = (log_q.exp() * (oracle.log_joint(x) - log_q)).sum()
    mean, error = spread(ScoreELBO(num_particles), oracle, x)
    assert_within(mean, error, gradient(oracle, exact))


def test_baseline_lowers_the_variance(mixture):
    oracle, x = mixture
    _, alone = spread(ScoreELBO(1), oracle, x)
    _, four = spread(ScoreELBO(4), oracle, x)
    assert (
        four.norm() < 0.5 * alone.norm() / 1.05
    )  # a mean of four without a baseline would give a half


def test_score_functions_at_reparameterised_sites_have_the_exact_gradient(spoilt):
    oracle, x = spoilt
    mean, error = spread(ScoreELBO(3), oracle, x, copies=2_000)
    assert_within(mean, error, gradient(oracle, exact_elbo(oracle, x).sum()))


def test_wake_gradients_have_the_enumerated_mean(mixture):
    oracle, x = mixture
    log_p, log_q, probability = outcomes(oracle, x, 3)
    shares = (probability[:, None] * (log_p - log_q).softmax(1)).detach()
    mean, error = spread(RWS(3), oracle, x)
    assert_within(mean, error, gradient(oracle, (shares * (log_p + log_q)).sum()))


def dreams(oracle):
    """Expected log q(c | x) of dreamt pairs, by summing over all 64 data and all classes."""
    x = torch.tensor(list(itertools.product((0.0, 1.0), repeat=6)), dtype=torch.float64)
    return (oracle.log_joint(x).exp().detach() * oracle.log_guide(x)).sum()


@pytest.mark.parametrize(("update", "wake", "sleep"), [("sleep", 0.0, 1.0), ("both", 0.5, 0.5)])
def test_sleep_gradients_have_the_enumerated_mean(update, wake, sleep, mixture):
    oracle, x = mixture
    log_p, log_q, probability = outcomes(oracle, x, 3)
    shares = (probability[:, None] * (log_p - log_q).softmax(1)).detach()
    exact = (shares * (log_p + wake * log_q)).sum() + sleep * len(x) * dreams(oracle)
    mean, error = spread(RWS(3, update=update), oracle, x)
    assert_within(mean, error, gradient(oracle, exact))


def test_sleep_does_not_train_the_model_on_its_dreams(mixture):
    oracle, x = mixture
    found = []
    for update in ("wake", "sleep"):
        torch.manual_seed(1)
        found.append(
            gradient(
                oracle, RWS(5, update=update).differentiable_loss(oracle.model, oracle.guide, x)
            )
        )
    model = oracle.class_logits.numel() + oracle.pixel_logits.numel()
    assert_close(found[0][:model], found[1][:model])
    assert not torch.allclose(found[0][model:], found[1][model:])


def test_reparameterised_dreams_do_not_either():
    module, x = TwoLayers(spoil=0.3), torch.tensor([0.3, -1.0], dtype=torch.float64)
    found = []
    for update in ("wake", "sleep"):
        torch.manual_seed(1)
        loss = RWS(5, update=update).differentiable_loss(module.model, module.guide, x)
        found.append(gradient(module, loss)[: module.guide_slice.start])
    assert_close(*found)


def test_sleep_says_when_it_cannot_place_its_dream(mixture):
    oracle, x = mixture
    with pytest.raises(ValueError, match="observes none of the programs' positional arguments"):
        RWS(2, update="sleep").bound(lambda data: oracle.model(data + 0), oracle.guide, x)


def test_sleep_of_two_latent_layers_scores_both():
    """At the exact posterior the sleep gradient of the guide has mean zero."""
    module, x = TwoLayers(), torch.zeros(3, dtype=torch.float64)
    mean, error = spread(RWS(2, update="sleep"), module, x)
    part = module.guide_slice
    assert (error[part] > 0).all()
    assert_within(mean[part], error[part], torch.zeros(4, dtype=x.dtype))


def test_tvo_gradient_tends_to_the_enumerated_one(mixture):
    oracle, x = mixture
    ends = (0.0, 0.1, 0.4, 1.0)
    log_p, log_q = oracle.log_joint(x), oracle.log_guide(x)
    exact = 0.0
    for left, right in itertools.pairwise(ends):
        path = (left * log_p + (1 - left) * log_q).softmax(0)
        exact = exact + (right - left) * (path * (log_p - log_q)).sum()
    mean, error = spread(TVO(4_000, partition=ends), oracle, x, copies=5)
    # Self-normalising leaves a bias of order 1 / K, far below the error here.
    assert_within(mean, error, gradient(oracle, exact))


def test_tvo_gradient_at_the_left_end_alone_is_unbiased_for_two_particles(mixture):
    """One interval: the ELBO, with the covariance's K / (K - 1) making its score term exact."""
    oracle, x = mixture
    log_q = oracle.log_guide(x)
    mean, error = spread(TVO(2, partition=1), oracle, x)
    assert_within(
        mean, error, gradient(oracle, (log_q.exp() * (oracle.log_joint(x) - log_q)).sum())
    )


def test_one_particle_is_refused_where_others_make_the_baseline():
    with pytest.raises(ValueError, match="VIMCO needs num_particles >= 2"):
        VIMCO(1)


class Windows(nn.Module):
    """x is uniform from c to c + 2, so that each c excludes most data."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(3))
        self.net = nn.Linear(1, 3)
        for parameter in self.net.parameters():
            nn.init.zeros_(parameter)  # each c with a third, so that some draw explains each datum

    def model(self, x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(logits=self.logits))
            pyro.sample("x", dist.Uniform(c.to(x.dtype), c + 2.0, validate_args=False), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Categorical(logits=self.net(x[:, None])))


@pytest.mark.parametrize(
    ("estimator", "nonfinite"), [(RWS(100), "stop"), (VIMCO(100), "skip")], ids=repr
)
def test_models_that_exclude_some_values_are_trained(estimator, nonfinite):
    owner = Windows()
    x = torch.linspace(0.05, 0.95, 20)
    x = torch.cat([x, x[:10] + 3.0])  # two thirds are of c = 0, and one of c = 2
    options = {"epochs": 100, "batch_size": 30, "lr": 0.1, "nonfinite": nonfinite}
    history = pv.fit(owner.model, owner.guide, x, estimator=estimator, **options)
    best = (2 * math.log(2 / 3) + math.log(1 / 3)) / 3 - math.log(2)
    assert history["skipped"].sum() == 0
    # Below by the noise of the weights alone: the guide comes near the posterior.
    assert history["train_bound"][-1] == pytest.approx(best, abs=0.05)


def test_unknown_update_is_refused():
    with pytest.raises(ValueError, match="wake, sleep, both"):
        RWS(update="dream")


def test_leave_one_out_survives_a_dominant_weight():
    log_w = torch.tensor([[0.0], [-800.0], [-801.0]], dtype=torch.float64)
    expected = torch.stack([torch.cat([log_w[:k], log_w[k + 1 :]]).logsumexp(0) for k in range(3)])
    assert_close(leave_one_out(log_w), expected)


@pytest.mark.parametrize(
    "estimator", [VIMCO(4), RWS(4), RWS(4, update="both"), TVO(4), ScoreELBO(4)], ids=repr
)
def test_exact_discrete_guide_makes_the_bound_tight(estimator: Estimator):
    oracle = DiscreteMixture(exact_guide=True)
    x = oracle.sample(5)
    assert_close(estimator.bound(oracle.model, oracle.guide, x), oracle.log_prob(x).detach())


def test_continuous_sites_work_too():
    oracle = LinearGaussian(shift=0.4)
    x = oracle.sample(2)
    mean, error = spread(VIMCO(3), oracle, x, copies=2_000)
    from pyrovae.estimators import IWAE

    other, other_error = spread(IWAE(3), oracle, x, copies=2_000, seed=1_000)
    assert_within(mean, error, other, other_error)


def test_inner_plates_sum_to_one_number_a_datum():
    class Pairs(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

        def model(self, x):
            with pyro.plate("data", x.shape[-1], dim=-1), pyro.plate("inner", 2, dim=-2):
                z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(self, x):
            with pyro.plate("data", x.shape[-1], dim=-1), pyro.plate("inner", 2, dim=-2):
                pyro.sample("z", dist.Normal(self.gain * x, 0.5**0.5))

    module, x = Pairs(), torch.tensor([[0.3, -1.0, 2.0], [0.7, 0.1, -0.4]], dtype=torch.float64)
    estimator = RWS(2, update="sleep", max_plate_nesting=2)
    assert_close(
        estimator.bound(module.model, module.guide, x), dist.Normal(0.0, 2**0.5).log_prob(x).sum(0)
    )
    # E log q(z | x) falls by (gain - 1/2)^2 E[x^2] over each of two pairs: its slope at 0.6 is -0.4
    # a pair.
    module.gain.data.fill_(0.6)
    torch.manual_seed(0)
    sums = []
    for _ in range(40):
        loss = estimator.differentiable_loss(module.model, module.guide, x.repeat(1, 500))
        sums.append(-gradient(module, loss) / 1_500)
    found = torch.stack(sums)
    assert_within(found.mean(0), found.std(0) / 40**0.5, torch.tensor([-0.8], dtype=x.dtype))
