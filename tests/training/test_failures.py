"""Training that meets what it must not swallow: numbers that are not finite, odd batches, scales."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn
from torch.testing import assert_close

import pyrovae as pv
from pyrovae import VAE, likelihoods, nets
from pyrovae.testing import LinearGaussian
from pyrovae.training import NonFiniteLoss, fit, loop


def gaussian_vae():
    torch.manual_seed(0)
    return VAE(
        (6,), 2, encoder=nets.MLP(8), decoder=nets.MLP(8), likelihood=likelihoods.Gaussian(1.0)
    )


@pytest.fixture
def x():
    return torch.randn(70, 6, generator=torch.Generator().manual_seed(2))


def test_a_validation_bound_that_is_not_finite_is_an_error(x):
    """It used to give the initial weights back without a word."""
    vae, valid = gaussian_vae(), x.clone()
    valid[40, 0] = 1e25  # its square is not finite in single precision
    start = [p.detach().clone() for p in vae.parameters()]
    with pytest.raises(
        NonFiniteLoss, match=r"after epoch 1: the bound of the validation data 32 to 63"
    ) as e:
        fit(vae.model, vae.guide, x, valid=valid, epochs=2, batch_size=32)
    assert e.value.term == "valid_bound"
    assert any(not torch.equal(a, b) for a, b in zip(start, vae.parameters(), strict=True))
    assert all(p.isfinite().all() for p in vae.parameters())


class Subsampled(nn.Module):
    """A linear Gaussian that says it sees 12 of 1,000 data."""

    def __init__(self):
        super().__init__()
        self.inner = LinearGaussian(shift=0.3)

    def model(self, x):
        with pyro.plate("data", 1000, subsample=x):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            mean = z @ self.inner.weight.T + self.inner.bias
            pyro.sample("x", dist.Normal(mean, self.inner.log_noise.exp()).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", 1000, subsample=x):
            loc = x @ self.inner.gain.T + self.inner.offset
            pyro.sample("z", dist.Normal(loc, self.inner.log_scale.exp()).to_event(1))


@pytest.mark.parametrize(
    "estimator", [None, Trace_ELBO(num_particles=200, vectorize_particles=True)]
)
def test_bounds_do_not_hold_the_subsampling_scale(estimator):
    """A stock ELBO multiplies its loss by N / B; the history is in nats per datum all the same."""
    programs = Subsampled()
    x = programs.inner.sample(12)
    expected = (programs.inner.log_prob(x) - programs.inner.kl_to_posterior(x)).mean().item()
    history = fit(
        programs.model,
        programs.guide,
        x,
        valid=x,
        estimator=estimator or pv.estimators.ELBO(200),
        epochs=1,
        batch_size=12,
        optimizer=lambda parameters: torch.optim.SGD(parameters, 0.0),
    )
    # 200 draws for each of 12 data: a standard error of 0.02.
    assert_close(history["train_bound"][0], expected, rtol=0, atol=0.1)
    assert_close(history["valid_bound"][0], expected, rtol=0, atol=0.1)


def test_a_stock_elbo_takes_the_step_of_the_mean_loss():
    """Under a subsampled plate too: the gradient is that of the loss per datum."""
    weights = []
    for estimator in (pv.estimators.ELBO(), Trace_ELBO()):
        programs = Subsampled()
        fit(
            programs.model,
            programs.guide,
            programs.inner.sample(12),
            estimator=estimator,
            epochs=1,
            batch_size=12,
            optimizer=lambda parameters: torch.optim.SGD(parameters, 0.1),
            shuffle=False,
        )
        weights.append(torch.cat([p.detach().flatten() for p in programs.parameters()]))
    assert_close(weights[0], weights[1], rtol=1e-10, atol=1e-10)


class Normalised(nn.Module):
    """A pair whose encoder normalises its batch."""

    def __init__(self):
        super().__init__()
        self.norm, self.net = nn.BatchNorm1d(6), nn.Linear(6, 2)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample(
                "x",
                dist.Normal(z.sum(-1, keepdim=True).expand(*z.shape[:-1], 6), 1.0).to_event(1),
                obs=x,
            )

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.net(self.norm(x)), 0.5).to_event(1))


@pytest.mark.parametrize("capture", [True, False])
def test_running_statistics_see_each_step_once(x, capture):
    programs = Normalised()
    fit(programs.model, programs.guide, x, valid=x, epochs=2, batch_size=35, capture=capture)
    assert programs.norm.num_batches_tracked == 4


def test_missing_values_train(x):
    """``observe_part`` pairs take ``(x, mask)``; hidden values do not reach the bound."""
    vae = gaussian_vae()
    mask = torch.rand(70, 6, generator=torch.Generator().manual_seed(3)) < 0.7
    model, guide = pv.observe_part(vae.model, vae.guide)
    spoilt = torch.where(mask, x, 1e3)
    histories = []
    for data in (x, spoilt):
        vae = gaussian_vae()
        model, guide = pv.observe_part(vae.model, vae.guide)
        histories.append(fit(model, guide, (data, mask), epochs=2, batch_size=35, lr=1e-2))
    assert math.isfinite(histories[0]["train_bound"][-1])
    assert len(histories[0]) == 2


def test_losses_are_looked_at_every_fifty_steps(x, monkeypatch):
    monkeypatch.setattr(loop, "CHECK_EVERY", 3)
    vae = gaussian_vae()
    history = fit(vae.model, vae.guide, x, epochs=2, batch_size=10)
    assert history["step"].tolist() == [7, 14]
