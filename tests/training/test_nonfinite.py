"""Steps that are not finite: named with their data, or left out and counted."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pyrovae as pv
from pyrovae import VAE, likelihoods, nets
from pyrovae.svi import Step
from pyrovae.training import NonFiniteLoss, fit

X = torch.randn(64, 6, generator=torch.Generator().manual_seed(2))


class Normed(nn.Module):
    """An encoder whose running statistics a bad batch would spoil."""

    def __init__(self, outputs):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, outputs))

    def forward(self, x):
        return self.net(x)


def gaussian():
    torch.manual_seed(0)
    return VAE((6,), 2, encoder=Normed(4), decoder=nets.MLP(8),
               likelihood=likelihoods.Gaussian(1.0))  # fmt: skip


def everything(vae, step):
    """Parameters, buffers and the optimiser's state."""
    found = [t.clone() for t in vae.state_dict().values()]
    for state in step.optimizer.state.values():
        found += [torch.as_tensor(value).clone() for value in state.values()]
    return found


@pytest.mark.parametrize(
    ("make", "how"),
    [(torch.optim.Adam, {}), (torch.optim.Adam, {"capture": False}),
     (torch.optim.RMSprop, {"capture": False})],
)  # fmt: skip
def test_a_skipped_step_changes_nothing(make, how):
    vae, good = gaussian(), X[:16]
    bad = torch.where(torch.arange(16)[:, None] == 3, 1e30, good)
    parameters = [*vae.parameters()]
    estimator = pv.estimators.ELBO()
    step = Step(vae.model, vae.guide, estimator, make(parameters, lr=1e-2), parameters,
                skip=True, **how)  # fmt: skip
    with pyro.validation_enabled(False):
        step(good)
        before = everything(vae, step)
        step(bad)
        assert step.skipped == 1
        for kept, now in zip(before, everything(vae, step), strict=True):
            assert torch.equal(kept, now)
        step(good)
    assert step.skipped == 1
    assert any(not torch.equal(a, b) for a, b in zip(before, everything(vae, step), strict=True))


@pytest.mark.slow
def test_a_skipped_step_changes_nothing_when_compiled():
    test_a_skipped_step_changes_nothing(torch.optim.Adam, {"compile": True})


@pytest.mark.parametrize("loader", [False, True])
def test_skipped_steps_are_counted_and_no_part_of_the_means(loader):
    """As if the batch were not there: without its draws of noise, a run is the run without it."""
    data = X.clone()
    data[20:30] = 1e30  # the whole of batch two
    rest = torch.cat([X[:20], X[30:60]])
    weights, rows = [], []
    for part, nonfinite in ((data[:60], "skip"), (rest, "stop")):
        programs = Deterministic()
        train = DataLoader(TensorDataset(part), 10) if loader else part
        history = fit(programs.model, programs.guide, train, epochs=2, batch_size=10, shuffle=False,
                      nonfinite=nonfinite, device="cpu", lr=1e-3, capture=False)  # fmt: skip
        weights.append([p.detach().clone() for p in programs.parameters()])
        rows.append(history)
    assert rows[0]["skipped"].tolist() == [1, 1]
    assert rows[1]["skipped"].tolist() == [0, 0]
    assert rows[0]["step"].tolist() == [6, 12]
    # The update outside of the graph may round otherwise than the one within.
    torch.testing.assert_close(weights[0], weights[1])
    torch.testing.assert_close(rows[0]["train_bound"], rows[1]["train_bound"])


class Deterministic(nn.Module):
    """Programs without noise: z is a point."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(6, 2)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            mean = z.sum(-1, True).expand(-1, 6)
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(self.net(x), event_dim=1))


def test_an_epoch_of_nothing_but_skipped_steps_is_an_error():
    vae = gaussian()
    with pytest.raises(NonFiniteLoss, match="all 4 steps of the epoch were skipped"):
        fit(
            vae.model,
            vae.guide,
            torch.full((64, 6), 1e30),
            batch_size=16,
            nonfinite="skip",
            capture=False,
        )
    assert all(torch.equal(a, b) for a, b in zip(
        vae.state_dict().values(), gaussian().state_dict().values(), strict=True))  # fmt: skip


def test_the_error_names_site_batch_and_data():
    vae, data = gaussian(), X.clone()
    data[37, 2] = 1e30
    with pytest.raises(NonFiniteLoss) as caught:
        fit(vae.model, vae.guide, data, batch_size=16, epochs=1, shuffle=False, capture=False)
    said = str(caught.value)
    assert "in batch 2 of the epoch, which holds the data 32, 33, 34, 35, 36 and 11 more" in said
    assert "log p of site 'x' is not finite for the data 5 of the batch" in said
    assert "a larger minimum scale" in said
    vae = gaussian()
    with pytest.raises(NonFiniteLoss, match=r"in batch 2 of the epoch\. The last good weights"):
        fit(vae.model, vae.guide, DataLoader(TensorDataset(data), 16), epochs=1, capture=False)


def test_the_advice_fits_the_likelihood():
    torch.manual_seed(0)
    counts = torch.full((32, 6), 9e5)
    vae = VAE((6,), 2, likelihood=likelihoods.NegativeBinomial(),
              encoder=nets.MLP(8), decoder=nets.MLP(8))  # fmt: skip
    with pytest.raises(NonFiniteLoss) as caught:
        fit(vae.model, vae.guide, counts, epochs=3, lr=1e25, capture=False)
    assert "counts up to 900,000" in str(caught.value)
    assert "nets.Log1p" in str(caught.value)
    assert "minimum scale" not in str(caught.value)


def test_gradients_are_clipped_by_value():
    """A step of SGD at lr = 1 is the gradient, each element of it cut off."""
    steps = []
    for most in (None, 0.01):
        vae = gaussian()
        before = [p.detach().clone() for p in vae.parameters()]
        fit(vae.model, vae.guide, X, batch_size=64, epochs=1, clip_value=most, shuffle=False,
            optimizer=lambda p: torch.optim.SGD(p, 1.0), device="cpu", capture=False)  # fmt: skip
        steps.append([b - p.detach() for b, p in zip(before, vae.parameters(), strict=True)])
    for whole, clipped in zip(*steps, strict=True):
        torch.testing.assert_close(clipped, whole.clamp(-0.01, 0.01), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("wrong", [{"nonfinite": "ignore"}, {"clip_value": 0.0}])
def test_arguments_out_of_range(wrong):
    vae = gaussian()
    with pytest.raises(ValueError, match=next(iter(wrong))):
        fit(vae.model, vae.guide, X, **wrong)
