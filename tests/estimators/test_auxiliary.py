"""Guides with auxiliary sites: random ones that the model lacks, and draws that point masses map to
latents.
"""

import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.gradients import assert_within, gradient, spread
from pyro.infer import Trace_ELBO, autoguide
from torch import nn
from torch.testing import assert_close

from pyrovae import estimators
from pyrovae.estimators import (
    ELBO,
    IWAE,
    MIWAE,
    PIWAE,
    RWS,
    STL,
    TVO,
    VIMCO,
    AnalyticKL,
    Capacity,
    DReG,
    FreeBits,
    Renyi,
    RWSDReG,
    ScoreELBO,
)
from pyrovae.handlers import KLScale
from pyrovae.particles import draw, score_values

AUX = {"is_auxiliary": True}
X = torch.tensor([0.7, -1.1], dtype=torch.float64)


def parameter(value):
    return nn.Parameter(torch.tensor(value, dtype=torch.float64))


class Noisy(nn.Module):
    """z ~ N(0, 1), x | z ~ N(c z, r); the guide draws u first, then z ~ N(g x + shift(u), t)."""

    def __init__(self):
        super().__init__()
        self.c, self.log_r = parameter(1.2), parameter(-0.5)
        self.g, self.log_t = parameter(0.4), parameter(-0.8)
        self.place, self.log_s = parameter(0.3), parameter(-0.6)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
            pyro.sample("x", dist.Normal(self.c * z, self.log_r.exp()), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Normal(self.place, self.log_s.exp()), infer=AUX)
            pyro.sample("z", dist.Normal(self.g * x + u, self.log_t.exp()))

    def given(self, x, shift, variance):
        """``(B,)``: E[log p(x, z) - log q(z | u)] for z of mean g x + shift and variance t^2 +
        variance.
        """
        mean, noise = self.g * x + shift, (2 * self.log_r).exp()
        t = (2 * self.log_t).exp()
        log_x = dist.Normal(self.c * mean, self.log_r.exp()).log_prob(x)
        log_x = log_x - self.c**2 * (t + variance) / (2 * noise)
        return log_x - 0.5 * (mean**2 + variance + t - 1 - 2 * self.log_t)

    def bound(self, x):
        return self.given(x, self.place, (2 * self.log_s).exp())


class Forked(Noisy):
    """The same with a binary u of probability sigmoid(place), which moves z by one or minus one."""

    def guide(self, x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Bernoulli(logits=self.place), infer=AUX)
            pyro.sample("z", dist.Normal(self.g * x + 2 * u - 1, self.log_t.exp()))

    def bound(self, x):
        q = self.place.sigmoid()
        return q * self.given(x, 1.0, 0.0) + (1 - q) * self.given(x, -1.0, 0.0)


class Binary(nn.Module):
    """Everything binary: the guide draws u, then c given u; the model knows c alone."""

    def __init__(self):
        super().__init__()
        self.place, self.pull, self.mean = parameter(0.4), parameter(1.5), parameter(0.9)

    def model(self, x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(torch.full((), 0.3, dtype=x.dtype)))
            pyro.sample("x", dist.Normal(self.mean * c, 0.8), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Bernoulli(logits=self.place), infer=AUX)
            pyro.sample("c", dist.Bernoulli(logits=self.pull * (u - 0.5) + 0.2 * x))

    def pair(self, x):
        """``(B,)``: the expected bound of two particles, over all sixteen outcomes."""
        outcomes = []
        for u in (0.0, 1.0):
            for c in (0.0, 1.0):
                u_, c_ = torch.full_like(x, u), torch.full_like(x, c)
                log_u = dist.Bernoulli(logits=self.place).log_prob(u_)
                log_c = dist.Bernoulli(logits=self.pull * (u_ - 0.5) + 0.2 * x).log_prob(c_)
                log_p = dist.Bernoulli(torch.full_like(x, 0.3)).log_prob(c_)
                log_p = log_p + dist.Normal(self.mean * c_, 0.8).log_prob(x)
                outcomes.append(((log_u + log_c).exp(), log_p - log_c))
        total = 0.0
        for p, a in outcomes:
            for q, b in outcomes:
                total = total + p * q * (torch.logaddexp(a, b) - math.log(2))
        return total


@pytest.mark.parametrize(
    "estimator",
    [
        ELBO(2),
        AnalyticKL(2),
        STL(2),
        ScoreELBO(3),
        TVO(3, partition=1),
        Capacity(ELBO(2), 0.0, gamma=1.0),
    ],
    ids=repr,
)
def test_a_random_auxiliary_site_has_the_gradient_in_closed_form(estimator):
    owner = Noisy()
    mean, error = spread(estimator, owner, X)
    assert_within(mean, error, gradient(owner, owner.bound(X).sum()))


@pytest.mark.parametrize("estimator", [ELBO(1), ELBO(3), AnalyticKL(2), ScoreELBO(2)], ids=repr)
def test_a_discrete_auxiliary_site_has_the_enumerated_gradient(estimator):
    owner = Forked()
    mean, error = spread(estimator, owner, X)
    assert_within(mean, error, gradient(owner, owner.bound(X).sum()))


@pytest.mark.parametrize(
    ("estimator", "plain"),
    [
        (DReG(4), IWAE(4)),
        (PIWAE(1, 4), IWAE(4)),
        (VIMCO(4), IWAE(4)),
        (Renyi(0.0, 4), IWAE(4)),
        (PIWAE(3, 2), MIWAE(3, 2)),
    ],
    ids=repr,
)
def test_importance_bounds_with_a_random_auxiliary_site_agree_with_plain_differentiation(
    estimator, plain
):
    owner = Noisy()
    mean, error = spread(estimator, owner, X, copies=300)
    truth, noise = spread(plain, owner, X, copies=300, seed=1000)
    guide = slice(2, None)  # where PIWAE follows the other bound
    assert_within(mean[guide], error[guide], truth[guide], noise[guide])


def test_vimco_with_a_discrete_auxiliary_site_has_the_enumerated_gradient():
    owner = Binary()
    mean, error = spread(VIMCO(2), owner, X, copies=2_000)
    assert_within(mean, error, gradient(owner, owner.pair(X).sum()))


def test_weights_given_a_random_auxiliary_site_average_to_the_evidence():
    """E[p(x, z) / q(z | u, x)] = p(x), whatever the distribution of u."""
    owner = Noisy()
    torch.manual_seed(0)
    found = IWAE(200_000).bound(owner.model, owner.guide, X)
    variance = owner.c**2 + (2 * owner.log_r).exp()
    assert_close(found, dist.Normal(0.0, variance.sqrt()).log_prob(X).detach(), rtol=0, atol=0.02)


@pytest.mark.parametrize("estimator", [STL(2), IWAE(2), DReG(2)], ids=repr)
def test_a_discrete_auxiliary_site_cannot_be_differentiated_through(estimator):
    owner = Forked()
    with pytest.raises(ValueError, match="differentiates through 'u'"):
        estimator.bound(owner.model, owner.guide, X)


@pytest.mark.parametrize("estimator", [RWS(3), RWSDReG(3)], ids=repr)
def test_wake_updates_refuse_a_hidden_density(estimator):
    owner = Noisy()
    with pytest.raises(ValueError, match=r"density of the latent sites alone.*\['u'\]"):
        estimator.bound(owner.model, owner.guide, X)


# --- point masses that map auxiliary draws -------------------------------------------------------


class Positive(nn.Module):
    """z ~ Gamma, x | z ~ Poisson; a log-normal guide, written as one distribution or as a mapped
    draw.
    """

    def __init__(self, mapped):
        super().__init__()
        self.rate, self.loc, self.log_scale = parameter(1.1), parameter(0.2), parameter(-0.7)
        self.mapped = mapped

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(2.0, self.rate))
            pyro.sample("x", dist.Poisson(z), obs=x)

    def guide(self, x):
        loc, scale = self.loc + 0.3 * x, self.log_scale.exp()
        with pyro.plate("data", len(x)):
            if not self.mapped:
                return pyro.sample("z", dist.LogNormal(loc, scale))
            u = pyro.sample("u", dist.Normal(loc, scale), infer=AUX)
            return pyro.sample("z", dist.Delta(u.exp(), log_density=-u))


COUNTS = torch.tensor([0.0, 3.0], dtype=torch.float64)
MAPPED = [
    ELBO(1),
    ELBO(4),
    AnalyticKL(3),
    STL(1),
    STL(3),
    ScoreELBO(3),
    IWAE(1),
    IWAE(4),
    MIWAE(2, 3),
    PIWAE(2, 3),
    DReG(1),
    DReG(4),
    TVO(4),
    VIMCO(3),
    Renyi(0.5, 3),
    RWS(3),
    RWSDReG(3),
    Capacity(ELBO(3), 0.5),
]


@pytest.mark.filterwarnings("ignore:AnalyticKL")
@pytest.mark.parametrize("estimator", MAPPED, ids=repr)
def test_a_mapped_draw_is_the_distribution_that_it_makes(estimator):
    """For the same draws: bound, KL and gradient are those of the log-normal guide."""
    found = []
    for mapped in (False, True):
        owner = Positive(mapped)
        torch.manual_seed(3)
        particles = estimator.particles(owner.model, owner.guide, COUNTS)
        terms = estimator.terms(particles)
        grad = gradient(owner, estimator.loss_of(terms))
        found.append((terms.bound.detach(), estimator.kl(particles).detach(), grad))
    for plain, ours in zip(*found, strict=True):
        assert_close(ours, plain)


@pytest.mark.parametrize("estimator", [ELBO(3), STL(3), IWAE(3), DReG(3)], ids=repr)
def test_a_map_with_parameters_keeps_its_whole_gradient(estimator):
    """u ~ N(0, 1) without parameters, z = loc + scale u: all gradient is the map's, for the same
    draws.
    """

    class Affine(Noisy):
        def guide(self, x):
            with pyro.plate("data", len(x)):
                u = pyro.sample("u", dist.Normal(torch.zeros_like(x), 1.0), infer=AUX)
                z = self.g * x + self.log_t.exp() * u
                pyro.sample("z", dist.Delta(z, log_density=-self.log_t))

    class Plain(Noisy):
        def guide(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.g * x, self.log_t.exp()))

    found = []
    for owner in (Affine(), Plain()):
        plain = {ELBO: ELBO(3), STL: ELBO(3)}.get(type(estimator), IWAE(3))
        each = estimator if isinstance(owner, Affine) else plain
        torch.manual_seed(5)
        found.append(gradient(owner, each.differentiable_loss(owner.model, owner.guide, X)))
    assert_close(*found)


def test_a_map_that_loses_numbers_is_refused():
    def guide(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Normal(torch.zeros(2), 1.0).to_event(1), infer=AUX)
            pyro.sample("z", dist.Delta(u.sum(-1)))

    with pytest.raises(ValueError, match="no change of variables"):
        ELBO().bound(Noisy().model, guide, X)


@pytest.mark.parametrize("kind", ["random", "mapped", "none"])
def test_particles_come_back_from_their_random_values(kind):
    owner, x = (Noisy(), X) if kind == "random" else (Positive(kind == "mapped"), COUNTS)
    drawn = draw(owner.model, owner.guide, 4, (x,))
    found = score_values(owner.model, owner.guide, drawn.random_values, (x,))
    assert set(drawn.random_values) == {"random": {"u", "z"}, "mapped": {"u"}, "none": {"z"}}[kind]
    assert_close(found.log_weights, drawn.log_weights)
    assert_close(found.log_auxiliary, drawn.log_auxiliary)


def test_a_mapped_value_has_no_density_of_its_own():
    owner = Positive(True)
    with pytest.raises(ValueError, match=r"computes \['z'\] from its auxiliary sites \['u'\]"):
        score_values(owner.model, owner.guide, {"z": torch.rand(4, 2).double()}, (COUNTS,))


def test_beta_multiplies_the_kl_of_a_mapped_draw():
    owner = Positive(True)
    losses = []
    for beta in (0.0, 0.5, 1.0):
        torch.manual_seed(0)
        model, guide = KLScale(beta)(owner.model), KLScale(beta)(owner.guide)
        losses.append(ELBO(3).differentiable_loss(model, guide, COUNTS))
    assert_close(losses[1], (losses[0] + losses[2]) / 2)


def test_free_bits_refuse_a_mapped_draw():
    owner = Positive(True)
    with pytest.raises(ValueError, match="FreeBits needs the KL of each latent site"):
        FreeBits(ELBO()).bound(owner.model, owner.guide, COUNTS)


# --- Pyro's automatic guides
# -----------------------------------------------------------------------

WEIGHT = torch.tensor([[0.8, 0.3], [-0.2, 1.1]], dtype=torch.float64)
ROWS = torch.tensor([[0.3, -1.0], [2.0, 0.5], [-0.4, 1.2]], dtype=torch.float64)


def linear(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ WEIGHT, 0.5).to_event(1), obs=x)


@pytest.fixture
def automatic():
    """Makes an automatic guide of the linear model in double precision, which has its parameters
    already.
    """
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)

    def make(kind, **options):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        guide = kind(linear, **options)
        guide(ROWS)
        return guide

    yield make
    pyro.clear_param_store()
    torch.set_default_dtype(default)


@pytest.mark.parametrize("kind", [autoguide.AutoNormal, autoguide.AutoDelta])
@pytest.mark.parametrize("estimator", [ELBO(), AnalyticKL()], ids=repr)
def test_bounds_and_gradients_of_automatic_guides_are_those_of_pyro(kind, estimator, automatic):
    guide = automatic(kind)
    results = []
    for elbo in (Trace_ELBO(), estimator):
        torch.manual_seed(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loss = elbo.differentiable_loss(linear, guide, ROWS)
        results.append((loss, gradient(guide, loss)))
    assert_close(results[1], results[0])


@pytest.mark.parametrize(
    "estimator",
    [
        STL(2),
        ScoreELBO(2),
        DReG(1),
        PIWAE(2, 1),
        TVO(3, partition=1),
    ],
    ids=repr,
)
def test_gradients_of_auto_normal_are_those_of_its_elbo_in_closed_form(estimator, automatic):
    guide = automatic(autoguide.AutoNormal, init_scale=0.4)

    class Pair(nn.Module):
        model = staticmethod(linear)

        def __init__(self):
            super().__init__()
            self.inner = guide

        def guide(self, x):
            return self.inner(x)

    loc, scale = guide.locs.z, guide.scales.z
    mean, variance = loc @ WEIGHT, (scale**2) @ WEIGHT**2
    elbo = dist.Normal(mean, 0.5).log_prob(ROWS).sum() - variance.sum() / 0.5
    elbo = elbo - 0.5 * (loc**2 + scale**2 - 1 - 2 * scale.log()).sum()
    owner = Pair()
    found = []
    for seed in range(400):
        torch.manual_seed(seed)
        loss = estimator.differentiable_loss(linear, owner.guide, ROWS)
        found.append(-gradient(owner, loss))
    stacked = torch.stack(found)
    truth = gradient(owner, elbo)
    assert_within(stacked.mean(0), stacked.std(0) / len(found) ** 0.5, truth)


@pytest.mark.parametrize(
    "kind",
    [
        autoguide.AutoDiagonalNormal,
        autoguide.AutoMultivariateNormal,
        autoguide.AutoLowRankMultivariateNormal,
        autoguide.AutoIAFNormal,
    ],
)
@pytest.mark.parametrize("name", ["ELBO", "STL", "IWAE", "VIMCO"])
def test_guides_that_draw_all_data_at_once_are_refused(kind, name, automatic):
    guide = automatic(kind)
    with pytest.raises(ValueError, match="for all data at once, so it has no density for each"):
        getattr(estimators, name)(2).bound(linear, guide, ROWS)


def test_auto_normal_bounds_the_evidence(automatic):
    guide = automatic(autoguide.AutoNormal, init_scale=0.8)
    torch.manual_seed(0)
    found = IWAE(100_000).bound(linear, guide, ROWS)
    covariance = WEIGHT.T @ WEIGHT + 0.25 * torch.eye(2, dtype=ROWS.dtype)
    truth = dist.MultivariateNormal(torch.zeros(2, dtype=ROWS.dtype), covariance).log_prob(ROWS)
    assert_close(found, truth, rtol=0, atol=0.05)


@pytest.mark.parametrize("num_particles", [1, 3])
def test_a_guide_that_remembers_its_data_does_not_blame_the_scale(num_particles, automatic):
    guide = automatic(autoguide.AutoNormal)
    with pytest.raises(ValueError, match="needs all of its data in every call") as caught:
        ELBO(num_particles).loss(linear, guide, ROWS[:2])
    assert "KLScale" not in str(caught.value)
