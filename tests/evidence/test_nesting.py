"""Evidence finds how deep plates nest, and refuses data in another plate than the right-most."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyrovae as pv
from pyrovae import estimators
from pyrovae.evidence.inspection import inspect

F64 = torch.float64
X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
# z ~ N(0, 1), x | z ~ N(z, 1/4), independent over time: x ~ N(0, 5/4).
ZERO = torch.zeros((), dtype=F64)
TRUTH = dist.Normal(ZERO, ZERO + math.sqrt(1.25)).log_prob(X).sum(1)


class Series(nn.Module):
    """A latent variable for each of the measurements of a datum, with the exact posterior."""

    def __init__(self, dims=(-1, -2)):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.8, dtype=F64))
        self.dims = dims

    def plates(self, x):
        data, time = self.dims
        return pyro.plate("data", len(x), dim=data), pyro.plate("time", x.shape[1], dim=time)

    def model(self, x):
        data, time = self.plates(x)
        with data, time:
            z = pyro.sample("z", dist.Normal(ZERO, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=self.turned(x))

    def guide(self, x):
        data, time = self.plates(x)
        with data, time:
            pyro.sample("z", dist.Normal(self.slope * self.turned(x), ZERO + math.sqrt(0.2)))

    def turned(self, x):
        return x if self.dims[1] == -1 else x.T


@pytest.mark.parametrize("dims", [(-1, -2), (None, None)], ids=["said", "unsaid"])
def test_nesting_is_found(dims):
    owner = Series(dims)
    assert inspect(owner.model, owner.guide, X).max_plate_nesting == 2
    for nesting in (None, 2, 3):
        evidence = pv.log_marginal(
            owner.model, owner.guide, X, num_particles=7, max_plate_nesting=nesting
        )
        np.testing.assert_allclose(evidence.log_marginal, TRUTH, rtol=1e-12)
    method = pv.AIS(num_temperatures=3, num_chains=2, start="guide")
    annealed = pv.log_marginal(owner.model, owner.guide, X, method=method)
    np.testing.assert_allclose(annealed.log_marginal, TRUTH, rtol=1e-9)
    table = pv.compare_estimators(
        owner.model, owner.guide, X, {"IWAE": estimators.IWAE(3)}, num_replicates=4
    )
    assert table.dataset["bound"].item() == pytest.approx(TRUTH.mean().item(), rel=1e-9)
    bound = estimators.IWAE(4).bound(owner.model, owner.guide, X)
    torch.testing.assert_close(bound, TRUTH, rtol=1e-12, atol=0)


def test_chains_do_not_feel_how_deep_plates_nest():
    """The same numbers however many dimensions lie between particles and data; with three, HMC drew
    numbers of a wrong shape.
    """
    oracle = pv.testing.LinearGaussian(shift=0.5, stretch=1.3)
    x, method = oracle.sample(4), pv.AIS(num_temperatures=3, num_chains=5, num_leapfrog=3)
    one, two, three = (
        pv.log_marginal(oracle.model, oracle.guide, x, method=method, max_plate_nesting=nesting)
        for nesting in (1, 2, 3)
    )
    np.testing.assert_allclose(two.log_marginal, one.log_marginal, rtol=1e-9)
    np.testing.assert_allclose(three.log_marginal, one.log_marginal, rtol=1e-9)


def test_too_few_are_refused():
    owner = Series()
    with pytest.raises(ValueError, match="Pass max_plate_nesting=2 or more"):
        pv.log_marginal(owner.model, owner.guide, X, max_plate_nesting=1)
    for wrong in (0, True, 1.5):
        with pytest.raises(ValueError, match="max_plate_nesting must be at least 1"):
            pv.log_marginal(owner.model, owner.guide, X, max_plate_nesting=wrong)


def one_step(model, guide, x):
    return pv.SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), estimators.ELBO()).step(x)


USES = {
    "fit": lambda *pair: pv.fit(*pair, X, epochs=1),
    "log_marginal": lambda *pair: pv.log_marginal(*pair, X, num_particles=5),
    "compare_estimators": lambda *pair: pv.compare_estimators(*pair, X, {"a": estimators.ELBO()}),
    "bdmc": lambda *pair: pv.bdmc(*pair, num_data=6, data=X),
    "SVI": lambda *pair: one_step(*pair, X),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_the_other_order_is_refused_with_one_message_everywhere(use):
    owner = Series(dims=(-2, -1))
    with pytest.raises(ValueError, match=r"plate 'data' of the 6 data is at dim=-2.*right-most"):
        use(owner.model, owner.guide)
