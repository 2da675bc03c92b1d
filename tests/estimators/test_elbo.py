"""The ELBO: against stock Pyro under the same draws, closed forms, and enumeration."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.gradients import TwoLayers, assert_within, exact_elbo, gradient, spread
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch.testing import assert_close

from pyrovae.estimators import ELBO, AnalyticKL
from pyrovae.handlers import KLScale
from pyrovae.testing import LinearGaussian

PAIRS = [(ELBO, Trace_ELBO), (AnalyticKL, TraceMeanField_ELBO)]


def stock_gradient(stock, module, *, num_particles, beta, x):
    elbo = stock(
        num_particles=num_particles, vectorize_particles=num_particles > 1, max_plate_nesting=1
    )
    scaled = KLScale(beta)
    torch.manual_seed(7)
    loss = elbo.differentiable_loss(scaled(module.model), KLScale(beta)(module.guide), x)
    return loss.detach(), gradient(module, loss)


@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize("num_particles", [1, 4])
@pytest.mark.parametrize(("ours", "stock"), PAIRS, ids=["ELBO", "AnalyticKL"])
@pytest.mark.parametrize("size", [1, 5])
def test_loss_and_gradient_equal_stock_pyro_under_the_same_draws(
    ours, stock, num_particles, beta, size
):
    oracle = LinearGaussian(shift=0.5, stretch=1.3)
    x = oracle.sample(size)
    loss, grad = stock_gradient(stock, oracle, num_particles=num_particles, beta=beta, x=x)
    torch.manual_seed(7)
    found = ours(num_particles).differentiable_loss(
        KLScale(beta)(oracle.model), KLScale(beta)(oracle.guide), x
    )
    assert_close(found.detach(), loss)
    assert_close(gradient(oracle, found), grad)


@pytest.mark.parametrize(("ours", "stock"), PAIRS, ids=["ELBO", "AnalyticKL"])
def test_two_layers_from_the_top_down_equal_stock_pyro(ours, stock):
    class TopDown(TwoLayers):
        def guide(self, x):
            with pyro.plate("data", len(x), dim=-1):
                z2 = pyro.sample("z2", dist.Normal(self.gain2 * x, self.log_scale2.exp()))
                pyro.sample("z1", dist.Normal(self.gain1 * x + 0.3 * z2, self.log_scale1.exp()))

    module, x = TopDown(), torch.tensor([0.3, -1.0], dtype=torch.float64)
    loss, grad = stock_gradient(stock, module, num_particles=3, beta=0.7, x=x)
    torch.manual_seed(7)
    found = ours(3).differentiable_loss(KLScale(0.7)(module.model), KLScale(0.7)(module.guide), x)
    assert_close(found.detach(), loss)
    assert_close(gradient(module, found), grad)


@pytest.mark.parametrize("estimator", [ELBO(2), AnalyticKL(2)], ids=repr)
@pytest.mark.filterwarnings("ignore:AnalyticKL")
def test_two_layers_from_the_bottom_up_have_the_exact_gradient(estimator):
    module, x = TwoLayers(spoil=0.3), torch.tensor([0.3, -1.0], dtype=torch.float64)
    mean, error = spread(estimator, module, x)
    assert_within(mean, error, gradient(module, module.elbo(x).sum()))


def test_closed_form_is_refused_where_the_prior_depends_on_a_later_draw():
    module, x = TwoLayers(), torch.zeros(2, dtype=torch.float64)
    with pytest.raises(ValueError, match="draws site 'z1' before"):
        AnalyticKL(strict=True).bound(module.model, module.guide, x)
    estimator = AnalyticKL()
    with pytest.warns(UserWarning, match="'z1'"):
        estimator.bound(module.model, module.guide, x)
    assert estimator.fallbacks == ("z1",)


def test_loss_and_grads_adds_the_gradient_of_the_loss(spoilt):
    oracle, x = spoilt
    estimator = ELBO(2)
    torch.manual_seed(0)
    expected = gradient(oracle, estimator.differentiable_loss(oracle.model, oracle.guide, x))
    torch.manual_seed(0)
    value = estimator.loss_and_grads(oracle.model, oracle.guide, x)
    torch.manual_seed(0)
    assert value == pytest.approx(estimator.loss(oracle.model, oracle.guide, x), abs=1e-12)
    assert_close(torch.cat([p.grad.flatten() for p in oracle.parameters()]), expected)


def test_many_draws_average_to_the_exact_elbo(spoilt):
    oracle, x = spoilt
    torch.manual_seed(0)
    found = torch.stack([ELBO(2_000).bound(oracle.model, oracle.guide, x) for _ in range(10)])
    assert_within(found.mean(0), found.std(0) / 10**0.5, exact_elbo(oracle, x).detach())


@pytest.mark.parametrize("estimator", [ELBO(1), AnalyticKL(1)], ids=repr)
def test_expected_gradient_is_that_of_the_exact_elbo(estimator, spoilt):
    oracle, x = spoilt
    mean, error = spread(estimator, oracle, x)
    assert_within(mean, error, gradient(oracle, exact_elbo(oracle, x).sum()))


def test_closed_form_kl_follows_its_formula(spoilt):
    oracle, x = spoilt
    estimator = AnalyticKL(1)
    mean, log_scale = x @ oracle.gain.T + oracle.offset, oracle.log_scale
    formula = -0.5 * (1 + 2 * log_scale - mean**2 - (2 * log_scale).exp()).sum(-1)
    assert_close(estimator.kl(estimator.particles(oracle.model, oracle.guide, x)), formula)


def test_beta_zero_leaves_the_reconstruction(spoilt):
    oracle, x = spoilt
    for estimator in (ELBO(3), AnalyticKL(3)):
        particles = estimator.particles(KLScale(0.0)(oracle.model), KLScale(0.0)(oracle.guide), x)
        assert_close(estimator.terms(particles).bound, particles.log_likelihood.mean(0))


def test_subsampling_multiplies_the_loss_and_not_the_bound():
    oracle = LinearGaussian(shift=0.5)
    x = oracle.sample(3)

    def subsampled(program):
        def run(data):
            with pyro.plate("data", 12, subsample_size=3, subsample=torch.arange(3), dim=-1):
                return program(data)

        return run

    def model(data):
        z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=data.dtype), 1.0).to_event(1))
        noise = oracle.log_noise.exp()
        pyro.sample(
            "x", dist.Normal(z @ oracle.weight.T + oracle.bias, noise).to_event(1), obs=data
        )

    def guide(data):
        mean = data @ oracle.gain.T + oracle.offset
        pyro.sample("z", dist.Normal(mean, oracle.log_scale.exp()).to_event(1))

    estimator = ELBO(2)
    torch.manual_seed(0)
    plain = estimator.loss(oracle.model, oracle.guide, x)
    torch.manual_seed(0)
    assert estimator.loss(subsampled(model), subsampled(guide), x) == pytest.approx(
        4 * plain, rel=1e-12
    )
    torch.manual_seed(0)
    bound = estimator.bound(subsampled(model), subsampled(guide), x)
    assert bound.sum().item() == pytest.approx(-plain, rel=1e-12)


def mixture_prior_programs():
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            weights = dist.Categorical(torch.ones(2, dtype=x.dtype))
            components = dist.Normal(torch.tensor([-1.0, 1.0], dtype=x.dtype), 0.5)
            z = pyro.sample("z", dist.MixtureSameFamily(weights, components))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(0.5 * x, 0.7))

    return model, guide


def test_missing_closed_form_is_named_once_and_estimated_by_the_same_draws():
    model, guide = mixture_prior_programs()
    x = torch.tensor([0.2, -0.4], dtype=torch.float64)
    estimator = AnalyticKL(3)
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match=r"Normal \|\| MixtureSameFamily.*'z'"):
        found = estimator.bound(model, guide, x)
    assert estimator.fallbacks == ("z",)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimator.bound(model, guide, x)
    torch.manual_seed(0)
    assert_close(found, ELBO(3).bound(model, guide, x))


def test_strict_refuses_a_missing_closed_form():
    model, guide = mixture_prior_programs()
    with pytest.raises(ValueError, match="no closed form"):
        AnalyticKL(strict=True).bound(model, guide, torch.zeros(2))


@pytest.mark.parametrize("estimator", [ELBO(1), ELBO(3), AnalyticKL(1), AnalyticKL(3)], ids=repr)
def test_discrete_site_has_the_enumerated_gradient(estimator, mixture):
    oracle, x = mixture
    log_q = oracle.log_guide(x)
    exact = (log_q.exp() * (oracle.log_joint(x) - log_q)).sum()
    mean, error = spread(estimator, oracle, x)
    assert_within(mean, error, gradient(oracle, exact))


def test_scaled_discrete_site_has_the_enumerated_gradient(mixture):
    oracle, x = mixture
    beta, log_q = 0.4, oracle.log_guide(x)
    log_prior = oracle.class_logits.log_softmax(-1)[:, None]
    log_x = oracle.log_joint(x) - log_prior
    exact = (log_q.exp() * (log_x + beta * (log_prior - log_q))).sum()
    model, guide = oracle.model, oracle.guide
    oracle.model, oracle.guide = KLScale(beta)(model), KLScale(beta)(guide)
    mean, error = spread(ELBO(3), oracle, x)
    assert_within(mean, error, gradient(oracle, exact))


@pytest.mark.parametrize("estimator", [ELBO(2), AnalyticKL(2)], ids=repr)
def test_mixed_discrete_and_continuous_sites_have_the_exact_gradient(estimator):
    class Mixed(torch.nn.Module):
        """c ~ Categorical, z | c ~ N(m_c, 1), x | z ~ N(z, 1), with q(c | x) q(z | c, x)."""

        def __init__(self):
            super().__init__()
            like = {"dtype": torch.float64}
            self.means = torch.nn.Parameter(torch.tensor([-1.0, 0.5, 2.0], **like))
            self.logits = torch.nn.Parameter(torch.tensor([0.3, -0.2, 0.1], **like))
            self.centres = torch.nn.Parameter(torch.tensor([-0.5, 0.2, 0.9], **like))
            self.log_scale = torch.nn.Parameter(torch.tensor(-0.4, **like))

        def model(self, x):
            with pyro.plate("data", len(x), dim=-1):
                c = pyro.sample("c", dist.Categorical(torch.ones(3, dtype=x.dtype) / 3))
                z = pyro.sample("z", dist.Normal(self.means[c], 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x), dim=-1):
                c = pyro.sample("c", dist.Categorical(logits=self.logits.expand(len(x), 3)))
                pyro.sample("z", dist.Normal(0.5 * x + self.centres[c], self.log_scale.exp()))

        def elbo(self, x):
            q_c = self.logits.softmax(-1)
            mean, variance = 0.5 * x + self.centres[:, None], (2 * self.log_scale).exp()
            log_x = dist.Normal(mean, 1.0).log_prob(x) - variance / 2
            log_z = dist.Normal(self.means[:, None], 1.0).log_prob(mean) - variance / 2
            entropy = dist.Normal(0.0, self.log_scale.exp()).entropy()
            return (
                q_c[:, None]
                * (log_x + log_z + entropy - q_c.log()[:, None] - torch.tensor(3.0).log())
            ).sum(0)

    module, x = Mixed(), torch.tensor([0.7, -1.1], dtype=torch.float64)
    mean, error = spread(estimator, module, x)
    assert_within(mean, error, gradient(module, module.elbo(x).sum()))
