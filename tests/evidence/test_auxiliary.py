"""Evidence with guides that draw auxiliary sites: random ones, and draws that point masses map to
latent sites.
"""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import autoguide

import pyrovae as pv
from pyrovae.evidence import AIS, ImportanceSampling, bdmc

AUX = {"is_auxiliary": True}
WEIGHT = torch.tensor([[0.8, 0.3], [-0.2, 1.1]], dtype=torch.float64)
NOISE = 0.5


def linear(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ WEIGHT, NOISE).to_event(1), obs=x)


LAW = dist.MultivariateNormal(
    torch.zeros(2, dtype=torch.float64),
    WEIGHT.T @ WEIGHT + NOISE**2 * torch.eye(2, dtype=torch.float64),
)
GAIN = WEIGHT.T @ LAW.precision_matrix  # of the posterior's mean, as a row times GAIN.T


def random_guide(x):
    """The auxiliary draw u moves the mean of z."""
    with pyro.plate("data", len(x)):
        u = pyro.sample("u", dist.Normal(x.new_zeros(2), 0.3).to_event(1), infer=AUX)
        pyro.sample("z", dist.Normal(x @ GAIN.T + u, 0.6).to_event(1))


def mapped_guide(x):
    """z is a function of the auxiliary draw u, as in Pyro's automatic guides."""
    with pyro.plate("data", len(x)):
        u = pyro.sample("u", dist.Normal(x.new_zeros(2), 1.0).to_event(1), infer=AUX)
        volume = torch.full(u.shape[:-1], -2 * math.log(0.8), dtype=u.dtype)
        z = x @ GAIN.T + 0.3 + 0.8 * u
        pyro.sample("z", dist.Delta(z, log_density=volume, event_dim=1))


def plain_guide(x):
    """The same as one normal."""
    with pyro.plate("data", len(x)):
        loc = x @ GAIN.T + 0.3
        pyro.sample("z", dist.Normal(loc, torch.full_like(loc, 0.8)).to_event(1))


GUIDES = pytest.mark.parametrize("guide", [random_guide, mapped_guide])


def data(num, seed=0):
    torch.manual_seed(seed)
    return LAW.sample((num,))


def unbiased(evidence, x):
    ratio = np.exp(evidence.log_marginal.values - LAW.log_prob(x).numpy())
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(len(x))
    assert ratio.std() / math.sqrt(len(x)) < 0.03


@GUIDES
@pytest.mark.parametrize(
    "method",
    [
        ImportanceSampling(20),
        AIS(10, 8, start="guide", num_leapfrog=3),
        AIS(10, 8, start="guide", schedule="adaptive", num_leapfrog=3),
    ],
    ids=["importance", "ais", "adaptive"],
)
def test_unbiased(guide, method):
    """AIS drew auxiliary values anew at each density that it asked for: a mean ratio of 1.26."""
    x = data(2000)
    unbiased(pv.log_marginal(linear, guide, x, method=method), x)


def test_a_mapped_draw_gives_the_evidence_of_the_distribution_that_it_makes():
    x = data(30)
    for method in (ImportanceSampling(200), ImportanceSampling(60, target_standard_error=0.1)):
        plain, mapped = (
            pv.log_marginal(linear, guide, x, method=method)
            for guide in (plain_guide, mapped_guide)
        )
        np.testing.assert_allclose(mapped.log_marginal, plain.log_marginal, rtol=1e-10)
        np.testing.assert_array_equal(mapped.num_particles, plain.num_particles)


@pytest.mark.parametrize("budget", [None, 1], ids=["one piece", "no memory"])
def test_pyros_auto_normal(budget):
    """It keeps parameters for each datum, so the data stay together, whatever the budget."""
    x = data(9)
    pyro.clear_param_store()
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        automatic = autoguide.AutoNormal(linear, init_scale=0.6)
        automatic(x)
    finally:
        torch.set_default_dtype(default)
    loc, scale = automatic.locs.z.detach(), automatic.scales.z.detach()

    def written(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    method, options = ImportanceSampling(300), {"memory_budget": budget}
    found = pv.log_marginal(linear, automatic, x, method=method, **options)
    plain = pv.log_marginal(linear, written, x, method=method)
    np.testing.assert_allclose(found.log_marginal, plain.log_marginal, rtol=1e-10)
    error = found.log_marginal.values - LAW.log_prob(x).numpy()
    assert (np.abs(error) < 5 * found.standard_error.values + 0.02).all()
    for other in (
        AIS(15, 32, start="guide", num_leapfrog=4),
        ImportanceSampling(300, refine_steps=50),
    ):
        found = pv.log_marginal(linear, automatic, x, method=other, **options)
        error = found.log_marginal.values - LAW.log_prob(x).numpy()
        assert (np.abs(error) < 5 * found.standard_error.values + 0.02).all()
    with pytest.raises(ValueError, match="Leave target_standard_error out"):
        pv.log_marginal(linear, automatic, x, target_standard_error=0.1)
    pyro.clear_param_store()


class Positive:
    """z ~ Gamma and a log-normal guide, by a mapped draw: HMC moves the draw, which is
    unconstrained.
    """

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(x.new_tensor(2.0), 1.1))
            pyro.sample("x", dist.Poisson(z), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Normal(0.2 + 0.2 * x, 0.6), infer=AUX)
            pyro.sample("z", dist.Delta(u.exp(), log_density=-u))


def test_annealing_moves_the_draw_of_a_constrained_site():
    """z and x are Gamma and Poisson, so x is negative binomial."""
    owner, x = Positive(), torch.tensor([0.0, 1.0, 4.0], dtype=torch.float64).repeat(300)
    method = AIS(8, 8, start="guide", num_leapfrog=3)
    found = pv.log_marginal(owner.model, owner.guide, x, method=method)
    truth = dist.NegativeBinomial(2.0, probs=torch.tensor(1 / 2.1).double()).log_prob(x)
    ratio = np.exp(found.log_marginal.values - truth.numpy())
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / 30
    with pytest.raises(ValueError, match="site 'z' is Gamma"):
        pv.log_marginal(owner.model, owner.guide, x, method=AIS(2))


def test_a_discrete_auxiliary_site_cannot_be_moved():
    def guide(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Bernoulli(x.new_tensor(0.4)), infer=AUX)
            pyro.sample("z", dist.Normal(x @ GAIN.T + u[..., None] - 0.4, 0.7).to_event(1))

    x = data(2000)
    unbiased(pv.log_marginal(linear, guide, x, num_particles=20), x)
    with pytest.raises(ValueError, match="site 'u' is Bernoulli"):
        pv.log_marginal(linear, guide, x, method=AIS(2, start="guide"))


@pytest.mark.parametrize(
    "method",
    [ImportanceSampling(10), AIS(6, 4, start="guide", num_leapfrog=3)],
    ids=["importance", "ais"],
)
def test_sandwich(method):
    """The inverse weights from exact draws average to 1 / p(x) with a random auxiliary site."""
    sandwich = bdmc(linear, random_guide, num_data=400, data=data(400), method=method)
    truth = LAW.log_prob(sandwich.data[0]).numpy()
    for side in (truth - sandwich.lower.values, sandwich.upper.values - truth):
        assert side.mean() > -4 * side.std() / 20
    assert float(sandwich.gap.mean()) < 0.5
    with pytest.raises(ValueError, match="start='prior'"):
        bdmc(linear, mapped_guide, num_data=4, data=data(4), method=method)
    one = bdmc(linear, mapped_guide, num_data=4, data=data(4), method=AIS(3, 4, num_leapfrog=2))
    assert len(one) == 4


def test_draws_from_the_prior_beside_those_of_the_guide():
    method, x = ImportanceSampling(20, prior_share=0.4), data(1000)
    found = pv.log_marginal(linear, random_guide, x, method=method)
    unbiased(found, x)
    again = pv.log_marginal(linear, random_guide, x.flip(0), method=method)
    np.testing.assert_allclose(again.log_marginal[::-1], found.log_marginal, rtol=1e-10)
    with pytest.raises(ValueError, match="density at a draw of the prior"):
        pv.log_marginal(linear, mapped_guide, x, method=method)
    refined = ImportanceSampling(20, prior_share=0.4, refine_steps=5)
    unbiased(pv.log_marginal(linear, mapped_guide, x, method=refined), x)


@GUIDES
def test_where_the_nats_go(guide):
    found = pv.where_the_nats_go(linear, guide, data(300), num_particles=64)
    plain = pv.where_the_nats_go(linear, plain_guide, data(300), num_particles=64)
    assert math.isnan(found.mean("mutual_information"))
    if guide is mapped_guide:
        assert found.mean("elbo") == pytest.approx(plain.mean("elbo"), rel=1e-10)
    np.testing.assert_allclose(found.activity, plain.activity, rtol=0.2)


def test_a_guide_of_points_alone_has_no_evidence():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(x @ GAIN.T, event_dim=1))

    with pytest.raises(ValueError, match="site 'z' is a Delta"):
        pv.log_marginal(linear, guide, data(3))
