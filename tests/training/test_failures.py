"""Training that meets what it must not swallow: numbers that are not finite,
odd batches, scales.
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

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
        torch.manual_seed(0)  # the last epoch is the best one
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


def test_modules_are_trained_however_a_program_holds_them(x):
    """In a dictionary, and behind a helper function: they used to stay as they were."""
    nets_ = {"encoder": nn.Linear(6, 2), "decoder": nn.Linear(2, 6)}

    def decode(z):
        return nets_["decoder"](z)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decode(z), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(nets_["encoder"](x), 0.5).to_event(1))

    before = {name: net.weight.detach().clone() for name, net in nets_.items()}
    fit(model, guide, x, epochs=1, batch_size=35, device="cpu")
    for name, net in nets_.items():
        assert not torch.equal(net.weight, before[name]), name


@pytest.mark.parametrize("stock", [Trace_ELBO(), TraceMeanField_ELBO()])
def test_running_statistics_see_each_step_of_a_stock_elbo_once(x, stock):
    programs = Normalised()
    fit(programs.model, programs.guide, x, valid=x, estimator=stock, epochs=2, batch_size=40)
    assert programs.norm.num_batches_tracked == 4


def test_a_last_batch_of_one_is_told_of_drop_last(x):
    programs = Normalised()
    with pytest.raises(ValueError, match=r"single datum.*drop_last=True"):
        fit(programs.model, programs.guide, x, epochs=1, batch_size=69)
    fit(programs.model, programs.guide, x, epochs=1, batch_size=69, drop_last=True)


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


def binary(size=40):
    return torch.bernoulli(torch.full((size, 6), 0.4), generator=torch.Generator().manual_seed(1))


def test_grey_data_in_a_later_batch_of_a_loader_are_found():
    data = binary()
    data[25, 2] = 0.5
    vae = VAE((6,), 2, encoder=nets.MLP(8), decoder=nets.MLP(8))
    loader = DataLoader(TensorDataset(data), batch_size=10)
    with pytest.raises(
        ValueError, match=r"Batch 2 of the train data: Bernoulli.*0 and 1.*found 0.5"
    ):
        fit(vae.model, vae.guide, loader, epochs=1)
    with pytest.raises(ValueError, match="Batch 2 of the valid data: Bernoulli"):
        fit(vae.model, vae.guide, binary(), valid=loader, epochs=1)


def test_a_transform_that_leaves_the_support_is_found():
    vae = VAE((6,), 2, encoder=nets.MLP(8), decoder=nets.MLP(8))
    calls = []

    def spoil(batch):
        calls.append(len(batch))
        return batch * 0.5 if len(calls) > 4 else batch

    with pytest.raises(ValueError, match=r"Batch \d of the train data: Bernoulli"):
        fit(vae.model, vae.guide, binary(), epochs=2, batch_size=10, transform=spoil)


def test_labels_out_of_range_in_a_later_batch_are_found():
    vae = pv.ConditionalVAE((6,), 2, condition_dim=3)
    labels = torch.zeros(40, dtype=torch.long)
    labels[33] = 3
    loader = DataLoader(TensorDataset(binary(), labels), batch_size=10)
    with pytest.raises(ValueError, match="Batch 3 of the train data"):
        fit(vae.model, vae.guide, loader, epochs=1)


@pytest.mark.parametrize("loader", [False, True])
def test_the_last_batch_may_be_left_out(x, loader):
    vae = gaussian_vae()
    data = TensorDataset(x) if not loader else _Rows(x)
    history = fit(vae.model, vae.guide, data, epochs=2, batch_size=20, drop_last=True)
    assert history["step"].tolist() == [3, 6]  # 70 data: three batches of 20, and ten left out
    if not loader:
        with pytest.raises(
            ValueError, match=r"drop_last=True leaves no batch.*fewer than batch_size=80"
        ):
            fit(vae.model, vae.guide, data, epochs=1, batch_size=80, drop_last=True)


class _Rows(torch.utils.data.Dataset):
    """A data set that is no tensor."""

    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return (self.x[i],)


@pytest.mark.parametrize("capture", [True, False])
def test_running_statistics_of_a_module_in_a_dictionary_see_each_step_once(x, capture):
    programs = Normalised()
    held = {"norm": programs.norm}

    def guide(x):
        with pyro.plate("data", len(x)):
            loc = pyro.module("net", programs.net)(held["norm"](x))
            pyro.sample("z", dist.Normal(loc, 0.5).to_event(1))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, True).expand(-1, 6), 1.0).to_event(1), obs=x)

    fit(model, guide, x, epochs=2, batch_size=35, device="cpu", capture=capture)
    assert programs.norm.num_batches_tracked == 4
    pyro.clear_param_store()


def test_the_seed_covers_every_generator_and_leaves_them_alone(x):
    import random

    import numpy as np

    def noisy(batch):
        return batch + 0.1 * np.random.randn() + random.random()  # noqa: NPY002

    found = []
    for _ in range(2):
        vae = gaussian_vae()
        before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
        history = fit(vae.model, vae.guide, x, epochs=2, batch_size=35, transform=noisy)
        assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002
        found.append(history["train_bound"].tolist())
        np.random.rand(3)  # noqa: NPY002
        random.random()
    assert found[0] == found[1]


def test_a_checkpoint_of_another_optimiser_is_refused(x, tmp_path):
    vae = gaussian_vae()
    common = {"epochs": 1, "batch_size": 35, "checkpoint": tmp_path / "state.pt"}
    fit(vae.model, vae.guide, x, **common)
    with pytest.raises(ValueError, match="was written with Adam, and the optimiser is SGD"):
        fit(
            vae.model, vae.guide, x, **common, resume=True,
            optimizer=lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9),
        )  # fmt: skip
