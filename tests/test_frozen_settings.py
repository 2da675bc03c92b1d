"""Numbers that programs keep in objects of their own may change at any time between calls."""

import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyrovae as pv
from pyrovae import estimators


class Settings:
    def __init__(self):
        self.scale = 1.0
        self.shift = np.zeros(3)


class Programs(nn.Module):
    """A linear model with a scale in an object and a shift in an array."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cfg = Settings()
        self.decode, self.encode = nn.Linear(2, 3).double(), nn.Linear(3, 4).double()

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2).to(x), 1.0).to_event(1))
            loc = self.decode(z) + torch.as_tensor(self.cfg.shift.mean())
            pyro.sample("x", dist.Normal(loc, self.cfg.scale).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            loc, raw = self.encode(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))


X = torch.linspace(-1, 1, 30, dtype=torch.float64).reshape(10, 3)


def change(programs):
    programs.cfg.scale = 3.0
    yield
    programs.cfg.shift[1] = 6.0
    yield


def losses_of_svi(capture):
    pyro.clear_param_store()
    programs = Programs()
    optimizer = pyro.optim.Adam({"lr": 1e-2})
    svi = pv.SVI(
        programs.model, programs.guide, optimizer, estimators.ELBO(), capture=capture, compile=False
    )
    torch.manual_seed(1)
    found = [svi.step(X) for _ in range(2)]
    for _ in change(programs):
        found += [svi.step(X) for _ in range(2)]
    assert (svi.compiled.reason is None) == capture
    return found


def bounds_of_fit(capture):
    programs = Programs()
    how = {"epochs": 2, "batch_size": 5, "capture": capture, "compile": False, "progress": False}
    how |= {"valid": X[:4]}
    changes = change(programs)
    found = pv.fit(
        programs.model, programs.guide, X, callback=lambda row: next(changes, None), **how
    )
    again = pv.fit(programs.model, programs.guide, X, **how)
    return [*found["train_bound"], *found["valid_bound"], *again["train_bound"]]


@pytest.mark.parametrize("run", [losses_of_svi, bounds_of_fit])
def test_a_change_is_followed_as_eager_programs_follow_it(run):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        captured = run(True)
    assert captured == pytest.approx(run(False), rel=1e-9)  # sums in another order


def test_a_change_between_two_estimates_of_evidence_is_followed():
    programs = Programs()
    method = pv.ImportanceSampling(num_particles=64, compile=True)

    def both():
        again = pv.log_marginal(programs.model, programs.guide, X, method=method)
        eager = pv.log_marginal(programs.model, programs.guide, X, num_particles=64)
        return again.mean(), eager.mean()

    before = both()
    for _ in change(programs):
        after = both()
        assert after[0] == pytest.approx(after[1], rel=1e-9)
        assert abs(after[0] - before[0]) > 0.1
        before = after
