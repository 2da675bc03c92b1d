"""What every estimator promises."""

import copy
import inspect

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.gradients import TwoLayers, gradient
from pyro import poutine
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from pyrovae import estimators
from pyrovae.estimators import AnalyticKL, BetaTC, Estimator
from pyrovae.estimators.kl_control import KLControl
from pyrovae.handlers import KLScale

CLASSES = [
    value
    for name in estimators.__all__
    if inspect.isclass(value := getattr(estimators, name))
    and issubclass(value, Estimator)
    and not inspect.isabstract(value)
    and not issubclass(value, KLControl)  # wrappers: their tests are in test_kl_control.py
]
ALL = [kind() for kind in CLASSES]
SMALL = [kind(num_particles=3) for kind in CLASSES]
BOUNDS = [estimator for estimator in ALL if not isinstance(estimator, AnalyticKL)]


@pytest.mark.parametrize("estimator", BOUNDS, ids=repr)
def test_exact_guide_makes_every_bound_tight(estimator, exact):
    """The log-weights do not vary, whatever is drawn; a closed-form KL is tight only in
    expectation.
    """
    oracle, x = exact
    assert_close(estimator.bound(oracle.model, oracle.guide, x), oracle.log_prob(x).detach())


@pytest.mark.parametrize("estimator", [e for e in BOUNDS if not isinstance(e, BetaTC)], ids=repr)
def test_exact_guide_in_two_layers_too(estimator):
    module, x = TwoLayers(), torch.tensor([0.3, -1.0], dtype=torch.float64)
    assert_close(estimator.bound(module.model, module.guide, x), module.log_prob(x).detach())


def test_a_bound_takes_data_sets_and_loaders_and_refuses_no_data(exact):
    oracle, x = exact
    items = TensorDataset(x.float(), torch.arange(len(x)))  # labels are left out
    for form in (items, DataLoader(items, batch_size=3), (x,), x.numpy()):
        bound = estimators.IWAE(2).bound(oracle.model, oracle.guide, form)
        assert_close(bound, oracle.log_prob(x).detach(), rtol=1e-6, atol=0)  # of float32 data
    with pytest.raises(ValueError, match=r"empty: shapes \[\(0, 5\)\]"):
        estimators.IWAE(2).bound(oracle.model, oracle.guide, x[:0])


@pytest.mark.parametrize("estimator", SMALL, ids=repr)
@pytest.mark.parametrize("size", [1, 3])
def test_loss_module_and_gradients_agree(estimator, size, spoilt):
    oracle, _ = spoilt
    x = oracle.sample(size)
    torch.manual_seed(0)
    bound = estimator.bound(oracle.model, oracle.guide, x)
    assert bound.shape == (size,)
    torch.manual_seed(0)
    loss = estimator.differentiable_loss(oracle.model, oracle.guide, x)
    assert_close(loss.detach(), -bound.sum())
    torch.manual_seed(0)
    assert_close(estimator(oracle.model, oracle.guide)(x).detach(), loss.detach())
    torch.manual_seed(0)
    assert estimator.loss(oracle.model, oracle.guide, x) == pytest.approx(loss.item(), rel=1e-12)
    found = gradient(oracle, loss)
    assert found.isfinite().all()
    torch.manual_seed(0)
    estimator.loss_and_grads(oracle.model, oracle.guide, x)
    assert_close(torch.cat([p.grad.flatten() for p in oracle.parameters()]), found)


@pytest.mark.parametrize("estimator", SMALL, ids=repr)
def test_a_datum_does_not_feel_the_others(estimator, spoilt):
    """The bound of a batch of two is the pair of bounds under the same draws."""
    oracle, x = spoilt
    noise = torch.randn(64, 2, 2, dtype=x.dtype)

    def guide(columns):
        def run(data):
            with pyro.plate("data", len(data), dim=-1):
                mean, scale = data @ oracle.gain.T + oracle.offset, oracle.log_scale.exp()
                fixed = _Fixed(mean, scale, noise[:, columns])
                pyro.sample("z", fixed.to_event(1))

        return run

    pair = estimator.bound(oracle.model, guide([0, 1]), x[:2])
    alone = [estimator.bound(oracle.model, guide([i]), x[i : i + 1]) for i in range(2)]
    assert_close(pair, torch.cat(alone))


class _Fixed(dist.Normal):
    """A normal whose draws come from a table of noise, ``(particles, data, D)``."""

    def __init__(self, loc, scale, noise):
        super().__init__(loc, scale)
        self.noise = noise

    def expand(self, batch_shape, _instance=None):
        return _Fixed(self.loc.expand(batch_shape), self.scale.expand(batch_shape), self.noise)

    def rsample(self, sample_shape=()):
        noise = self.noise[: self.loc.shape[0]] if self.loc.dim() == 3 else self.noise[0]
        return self.loc + self.scale * noise


@pytest.mark.parametrize("estimator", SMALL, ids=repr)
def test_scaled_programs_are_refused_where_they_mean_nothing(estimator, spoilt):
    oracle, x = spoilt
    model, guide = KLScale(0.5)(oracle.model), KLScale(0.5)(oracle.guide)
    if estimator.importance_weighted:
        with pytest.raises(ValueError, match="importance-weighted"):
            estimator.bound(model, guide, x)
        with pytest.raises(ValueError, match="importance-weighted"):
            estimator.bound(poutine.scale(oracle.model, 0.5), poutine.scale(oracle.guide, 0.5), x)
    else:
        torch.manual_seed(0)
        scaled = estimator.bound(model, guide, x)
        torch.manual_seed(0)
        particles = estimator.particles(oracle.model, oracle.guide, x)
        assert_close(
            scaled, (particles.log_likelihood.mean(0) - 0.5 * estimator.kl(particles)).detach()
        )


@pytest.mark.parametrize("estimator", SMALL, ids=repr)
def test_subsampling_scales_the_loss_outside_the_bound(estimator, spoilt):
    oracle, x = spoilt

    def model(data, full):
        with pyro.plate("data", full, subsample=torch.arange(len(data)), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=data.dtype), 1.0).to_event(1))
            loc = z @ oracle.weight.T + oracle.bias
            pyro.sample("x", dist.Normal(loc, oracle.log_noise.exp()).to_event(1), obs=data)

    def guide(data, full):
        with pyro.plate("data", full, subsample=torch.arange(len(data)), dim=-1):
            mean = data @ oracle.gain.T + oracle.offset
            pyro.sample("z", dist.Normal(mean, oracle.log_scale.exp()).to_event(1))

    losses = []
    for full in (3, 30):
        torch.manual_seed(0)
        losses.append(estimator.loss(model, guide, x, full))
    assert losses[1] == pytest.approx(10 * losses[0], rel=1e-12)
    torch.manual_seed(0)
    assert estimator.bound(model, guide, x, 30).sum().item() == pytest.approx(-losses[0], rel=1e-12)


@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_repr_rebuilds_it(estimator):
    assert repr(eval(repr(estimator), vars(estimators))) == repr(estimator)
    assert repr(copy.deepcopy(estimator)) == repr(estimator)


@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_target_has_the_same_draws_and_is_its_own_target(estimator):
    target = estimator.target()
    assert target.num_draws == estimator.num_draws
    assert repr(target.target()) == repr(target)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_counts_are_checked(kind):
    with pytest.raises(ValueError, match="num_particles >="):
        kind(num_particles=0)
    with pytest.raises(TypeError, match="integer num_particles"):
        kind(num_particles=2.5)
    with pytest.raises(ValueError, match="max_plate_nesting >= 1"):
        kind(max_plate_nesting=0)


@pytest.mark.parametrize("estimator", SMALL, ids=repr)
def test_svi_takes_it(estimator, spoilt):
    oracle, x = spoilt
    pyro.clear_param_store()
    before = oracle.weight.detach().clone()
    svi = pyro.infer.SVI(oracle.model, oracle.guide, pyro.optim.Adam({"lr": 0.01}), estimator)
    torch.manual_seed(0)
    losses = [svi.step(x) for _ in range(3)]
    assert torch.tensor(losses).isfinite().all()
    assert not torch.equal(before, oracle.weight)
    pyro.clear_param_store()


def test_a_latent_outside_the_plate_is_refused():
    def model(x):
        pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    def guide(x):
        pyro.sample("w", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="'w' lies outside the data plate"):
        estimators.ELBO(2).bound(model, guide, torch.zeros(3))
