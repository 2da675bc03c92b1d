"""Simulation-based calibration: exact guides have uniform ranks, and each fault of a guide shows as
what it is.
"""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.evidence import calibration
from pyrovae.testing import LinearGaussian


def of(oracle, **options):
    return calibration(oracle.model, oracle.guide, **{"num_data": 2000, **options})


def test_an_exact_guide_is_uniform():
    """The mean of 2,000 shares of variance 1/12 errs by 0.0065, their variance
    by 0.02 of itself.
    """
    for seed in range(3):
        found = of(LinearGaussian(), seed=seed)
        assert found.smallest_p > 0.01
        assert float(np.abs(found.mean_rank - 0.5).max()) < 4 * 0.0065
        assert float(np.abs(found.spread - 1).max()) < 4 * 0.02
    assert found.dataset["rank"].shape == (2000, 2)
    assert list(found.dataset["unit"].values) == ["z[0]", "z[1]"]
    assert "ranks not uniform   0 of 2 latent elements" in repr(found)


def test_p_values_are_those_of_a_test():
    """Of 200 runs with an exact guide, as many P fall below a level as it says."""
    oracle = LinearGaussian()
    p_values = [
        float(of(oracle, num_data=200, num_draws=19, seed=s).p_value[0]) for s in range(200)
    ]
    for level in (0.05, 0.5):
        error = math.sqrt(level * (1 - level) / 200)
        assert abs(np.mean(np.array(p_values) < level) - level) < 4 * error


@pytest.mark.parametrize(
    ("spoil", "mean", "spread"),
    [
        ({"shift": 0.3}, "low", None),
        ({"shift": -0.3}, "high", None),
        ({"stretch": 0.8}, None, "narrow"),
        ({"stretch": 1.25}, None, "wide"),
    ],
    ids=str,
)
def test_faults_are_found(spoil, mean, spread):
    found = of(LinearGaussian(**spoil))
    assert found.smallest_p < 1e-6
    if mean == "low":
        assert (found.mean_rank < 0.45).all()
    if mean == "high":
        assert (found.mean_rank > 0.55).all()
    if spread == "narrow":
        assert (found.spread > 1.15).all()
    if spread == "wide":
        assert (found.spread < 0.85).all()
    assert "2 of 2 latent elements" in repr(found)


def test_a_guide_that_ignores_the_data_passes_as_the_docs_say():
    oracle = LinearGaussian()

    def prior(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))

    assert calibration(oracle.model, prior, data=oracle.sample(1000)).smallest_p > 0.01


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_discrete_sites(shift):
    """A coin c, and x ~ N(c, 1): the posterior's logit is x - 1/2. Most draws
    equal the true value.
    """

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(x.new_tensor(0.5)))
            pyro.sample("x", dist.Normal(c, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Bernoulli(logits=x - 0.5 + shift))

    data = torch.zeros(2000, dtype=torch.float64)
    found = calibration(model, guide, num_data=2000, data=data)
    assert (found.smallest_p > 0.01) == (shift == 0)


def test_sites_in_an_inner_plate():
    def guide(x):
        """The exact posterior of z: a correlated normal."""
        matrix = torch.tensor([[2 / 3, -1 / 3], [-1 / 3, 2 / 3]], dtype=torch.float64)
        with pyro.plate("data", x.shape[-1], dim=-1), pyro.plate("view", 3, dim=-2):
            loc = (x / 3).unsqueeze(-1).expand(*x.shape, 2)
            pyro.sample("z", dist.MultivariateNormal(loc, matrix))

    def model(x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("view", 3, dim=-2):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        with pyro.plate("data_", len(x), dim=-1):
            pyro.sample("x", dist.Normal(z.sum(-1).movedim(-2, -1), 1.0).to_event(1), obs=x)

    data = torch.zeros(1500, 3, dtype=torch.float64)
    options = {"num_data": 1500, "data": data, "max_plate_nesting": 2}
    found = calibration(model, lambda x: guide(x.T), **options)
    assert found.p_value.size == 6
    assert list(found.dataset["unit"].values[:3]) == ["z[0][0]", "z[0][1]", "z[1][0]"]
    assert found.smallest_p > 0.01


def test_budget_changes_nothing_and_the_seed_does():
    oracle = LinearGaussian(shift=0.2)
    first = of(oracle, num_data=50, num_draws=150)
    again = of(oracle, num_data=50, num_draws=150, memory_budget=1)
    other = of(oracle, num_data=50, num_draws=150, seed=1)
    np.testing.assert_array_equal(first.dataset["rank"], again.dataset["rank"])
    assert (first.dataset["rank"] != other.dataset["rank"]).any()


def test_plot_and_a_vae():
    torch.manual_seed(0)
    vae = pv.VAE(6, 3, encoder=pv.nets.MLP(8), decoder=pv.nets.MLP(8))
    found = calibration(vae.model, vae.guide, num_data=60, num_draws=20)
    axes = found.plot()
    assert len(axes.patches) == 3
    assert axes.get_xlabel().startswith("rank of the true value")
    assert int(found.dataset["rank"].max()) <= 20
    import matplotlib.pyplot as plt

    plt.close(axes.figure)


def test_what_cannot_be_simulated_is_refused():
    oracle = LinearGaussian()
    with pytest.raises(ValueError, match="num_data must be at least 10"):
        of(oracle, num_data=3)
    with pytest.raises(ValueError, match="hold"):
        of(oracle, num_data=30, data=oracle.sample(20))
    with pytest.raises(AttributeError, match="There is no 'rnk' here"):
        of(oracle, num_data=30).rnk  # noqa: B018
