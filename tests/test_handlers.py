"""KLScale: laws of the factor, and what it refuses."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch.testing import assert_close

from pyrovae.estimators import ELBO, AnalyticKL
from pyrovae.handlers import KLScale
from pyrovae.testing import LinearGaussian


@pytest.fixture
def oracle():
    made = LinearGaussian(shift=0.5, stretch=1.3)
    return made, made.sample(4)


def loss(elbo, model, guide, x):
    torch.manual_seed(0)
    return elbo.loss(model, guide, x)


STOCK = [Trace_ELBO(), TraceMeanField_ELBO()]
ALL = [*STOCK, ELBO(), AnalyticKL()]


@pytest.mark.parametrize("elbo", ALL, ids=lambda e: type(e).__name__)
def test_nested_scales_multiply(elbo, oracle):
    module, x = oracle
    nested = [KLScale(0.5)(KLScale(0.3)(program)) for program in (module.model, module.guide)]
    flat = [KLScale(0.15)(program) for program in (module.model, module.guide)]
    assert loss(elbo, *nested, x) == pytest.approx(loss(elbo, *flat, x), rel=1e-12)


@pytest.mark.parametrize("elbo", ALL, ids=lambda e: type(e).__name__)
def test_the_loss_is_linear_in_beta(elbo, oracle):
    module, x = oracle
    at = {
        b: loss(elbo, KLScale(b)(module.model), KLScale(b)(module.guide), x)
        for b in (0.0, 0.25, 1.0)
    }
    assert at[0.25] == pytest.approx(0.75 * at[0.0] + 0.25 * at[1.0], rel=1e-12)
    assert at[1.0] == pytest.approx(loss(elbo, module.model, module.guide, x), rel=1e-12)


@pytest.mark.parametrize("elbo", ALL, ids=lambda e: type(e).__name__)
def test_beta_zero_is_the_reconstruction(elbo, oracle):
    module, x = oracle
    found = loss(elbo, KLScale(0.0)(module.model), KLScale(0.0)(module.guide), x)
    torch.manual_seed(0)
    mean, scale = x @ module.gain.T + module.offset, module.log_scale.exp()
    z = mean + scale * torch.randn(4, 2, dtype=x.dtype)
    log_x = dist.Normal(z @ module.weight.T + module.bias, module.log_noise.exp()).log_prob(x)
    assert found == pytest.approx(-log_x.sum().item(), rel=1e-12)


@pytest.mark.parametrize("elbo", ALL, ids=lambda e: type(e).__name__)
def test_scaling_the_model_alone_is_an_error(elbo, oracle):
    module, x = oracle
    with pytest.raises(ValueError, match="in the model but by"):
        elbo.loss(KLScale(0.5)(module.model), module.guide, x)


@pytest.mark.parametrize("elbo", [ELBO(), AnalyticKL()], ids=repr)
def test_scaling_the_guide_alone_is_an_error_too(elbo, oracle):
    module, x = oracle
    with pytest.raises(ValueError, match="in the model but by"):
        elbo.loss(module.model, KLScale(0.5)(module.guide), x)


@pytest.mark.parametrize("elbo", ALL, ids=lambda e: type(e).__name__)
def test_different_factors_are_an_error(elbo, oracle):
    module, x = oracle
    with pytest.raises(ValueError, match="in the model but by"):
        elbo.loss(KLScale(0.5)(module.model), KLScale(0.6)(module.guide), x)


def test_a_tensor_may_change_between_calls(oracle):
    module, x = oracle
    beta = torch.tensor(1.0, dtype=torch.float64)
    scaled = KLScale(beta)(module.model), KLScale(beta)(module.guide)
    first = loss(ELBO(), *scaled, x)
    beta.fill_(0.2)
    assert first == pytest.approx(loss(ELBO(), module.model, module.guide, x), rel=1e-12)
    fixed = KLScale(0.2)(module.model), KLScale(0.2)(module.guide)
    assert loss(ELBO(), *scaled, x) == pytest.approx(loss(ELBO(), *fixed, x), rel=1e-12)


def test_subsampling_and_beta_multiply(oracle):
    module, x = oracle

    def programs(full):
        def model(data):
            with pyro.plate("data", full, subsample=torch.arange(len(data)), dim=-1):
                z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=data.dtype), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z @ module.weight.T, 1.0).to_event(1), obs=data)

        def guide(data):
            with pyro.plate("data", full, subsample=torch.arange(len(data)), dim=-1):
                pyro.sample("z", dist.Normal(data @ module.gain.T, 0.5).to_event(1))

        return KLScale(0.3)(model), KLScale(0.3)(guide)

    for elbo in ALL:
        assert loss(elbo, *programs(40), x) == pytest.approx(
            10 * loss(elbo, *programs(4), x), rel=1e-12
        )


@pytest.mark.parametrize("beta", [-0.1, math.nan, math.inf])
def test_bad_factors_are_refused(beta):
    with pytest.raises(ValueError, match="finite beta >= 0"):
        KLScale(beta)


def test_a_factor_for_each_datum_is_refused():
    with pytest.raises(ValueError, match="one beta for all data"):
        KLScale(torch.ones(3))


def test_a_site_observed_outside_is_an_error():
    def model():
        return pyro.sample("x", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="Put KLScale outermost"):
        poutine.condition(KLScale(0.5)(model), {"x": torch.tensor(0.0)})()
    trace = poutine.trace(
        KLScale(0.5)(poutine.condition(model, {"x": torch.tensor(0.0)}))
    ).get_trace()
    assert_close(trace.log_prob_sum(), dist.Normal(0.0, 1.0).log_prob(torch.tensor(0.0)))
