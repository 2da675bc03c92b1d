"""Proposals fitted to each datum: a normal, a Student t, and either beside the prior."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.evidence import ImportanceSampling
from pyrovae.evidence.proposal import DiagonalGuide, _DiagonalStudentT
from pyrovae.testing import LinearGaussian


def model(x):
    """z and x given z are Student t, so the posterior falls like the seventh power of z."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.StudentT(x.new_tensor(3.0), 0.0, 1.0))
        pyro.sample("x", dist.StudentT(x.new_tensor(2.0), z, 0.7), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.5 * x, 0.4))


POINTS = torch.tensor([0.0, 1.0, 2.5, 6.0], dtype=torch.float64)


def log_evidence(x):
    """By the trapezoid rule in t, z = sinh(t), whose error is far below the digits that matter."""
    t = torch.linspace(-14, 14, 40_001, dtype=torch.float64)[:, None]
    z = t.sinh()
    log_p = dist.StudentT(3.0, 0.0, 1.0).log_prob(z) + dist.StudentT(2.0, z, 0.7).log_prob(x)
    return ((log_p + t.cosh().log()).logsumexp(0) + math.log(28 / 40_000)).numpy()


def estimate(num_particles, copies, **settings):
    method = ImportanceSampling(num_particles, refine_steps=60, **settings)
    return pv.log_marginal(model, guide, POINTS.repeat(copies), method=method)


@pytest.mark.parametrize(
    "settings",
    [
        {"proposal": "student_t"},
        {"prior_share": 0.2},
        {"proposal": "student_t", "prior_share": 0.2},
    ],
    ids=str,
)
def test_unbiased_and_of_light_tail_on_a_heavy_posterior(settings):
    ratio = np.exp(
        estimate(40, 500, **settings).log_marginal.values - np.tile(log_evidence(POINTS), 500)
    )
    for one in ratio.reshape(500, 4).T:
        assert abs(one.mean() - 1) < 4 * one.std() / math.sqrt(500)
        assert one.std() < 0.5
    plain, better = estimate(1000, 10), estimate(1000, 10, **settings)
    assert float(plain.pareto_k.mean()) > 0.6
    assert float(better.pareto_k.mean()) < 0.3
    assert better.share_flagged <= 0.25  # up to 0.175 over six seeds
    assert plain.share_flagged >= 0.4
    for name, value in settings.items():
        assert better.settings[name] == value
    assert "proposal" not in plain.settings
    np.testing.assert_allclose(better.refinement_gain, plain.refinement_gain)


def test_a_student_t_costs_little_where_the_posterior_is_normal():
    oracle = LinearGaussian(data_dim=12, latent_dim=6, shift=1.0, stretch=1.5)
    x = oracle.sample(20)
    method = ImportanceSampling(1000, refine_steps=100, proposal="student_t")
    found = pv.log_marginal(oracle.model, oracle.guide, x, method=method)
    error = found.log_marginal.values - oracle.log_prob(x).detach().numpy()
    assert (np.abs(error) < 4.5 * found.standard_error.values).all()
    assert float(found.ess.median()) > 400


@pytest.mark.parametrize("event", [(), (4,), (2, 3)])
def test_density_and_draws_of_the_student_t(event):
    """Against Pyro's multivariate t, which has a full matrix, and the t's
    variance, df / (df - 2).
    """
    generator = torch.Generator().manual_seed(0)
    loc = torch.randn(3, *event, generator=generator, dtype=torch.float64)
    scale = loc.abs() + 0.5
    ours = _DiagonalStudentT(5.0, loc, scale, len(event))
    flat, wide = loc.reshape(3, -1), scale.reshape(3, -1)
    theirs = dist.MultivariateStudentT(torch.tensor(5.0).double(), flat, torch.diag_embed(wide))
    torch.manual_seed(0)
    value = ours.rsample((40_000,))
    assert value.shape == (40_000, 3, *event)
    torch.testing.assert_close(ours.log_prob(value), theirs.log_prob(value.reshape(40_000, 3, -1)))
    # The fourth moment of t(5) is 25 in units of its scale: a standard error of 0.022 for the
    # variance of 5/3.
    spread = ((value - loc) / scale).square().mean(0)
    assert (spread - 5 / 3).abs().max() < 0.15
    assert ours.expand((7, 3)).batch_shape == (7, 3)


def test_the_guide_of_some_data():
    loc = torch.arange(6.0).reshape(3, 2)
    whole = DiagonalGuide({"z": loc}, {"z": loc + 1}, {"z": 1}, 5.0)
    some = whole.select(torch.tensor([2, 0]))
    assert torch.equal(some.locs["z"], loc[[2, 0]])
    assert some.degrees == 5.0


class Masked:
    """w counts for some data only; both are normal."""

    def __init__(self, inside):
        self.inside = inside  # whether the mask is within the distribution

    def draw(self, law, mask):
        if self.inside:
            return pyro.sample("w", law.mask(mask))
        with pyro.poutine.mask(mask=mask):
            return pyro.sample("w", law)

    def model(self, x, mask):
        with pyro.plate("data", len(x)):
            w = self.draw(dist.Normal(x.new_zeros(len(x)), 1.0), mask)
            pyro.sample("x", dist.Normal(torch.where(mask, w, 0.0 * w), 0.8), obs=x)

    def guide(self, x, mask):
        with pyro.plate("data", len(x)):
            self.draw(dist.Normal(0.5 * x, 0.9), mask)

    def one_sided(self, x, mask):
        with pyro.plate("data", len(x)):
            pyro.sample("w", dist.Normal(0.5 * x, 0.9))


@pytest.mark.parametrize("inside", [False, True])
def test_a_masked_site_is_weighed_by_the_guide_alone(inside):
    """A fitted normal would count where the mask hides the prior: weights without a mean."""
    x = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = torch.arange(12) % 2 == 0
    masked = Masked(inside)
    evidence = pv.log_marginal(masked.model, masked.guide, (x, mask), num_particles=400)
    scale = torch.where(mask, 1.64, 0.64 * torch.ones_like(x)).sqrt()
    error = evidence.log_marginal.values - dist.Normal(0.0, scale).log_prob(x).numpy()
    assert (abs(error) < 5 * evidence.standard_error.values + 1e-9).all()
    method = ImportanceSampling(100, refine_steps=3)
    with pytest.raises(ValueError, match=r"A mask hides part of the site 'w'.* refine_steps at 0"):
        pv.log_marginal(masked.model, masked.guide, (x, mask), method=method)
    with pytest.raises(ValueError, match="hides part of the site 'w' in one program and not"):
        pv.log_marginal(masked.model, masked.one_sided, (x, mask), num_particles=10)


def test_a_plate_that_knows_how_many_data_there_are_is_refined():
    x = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def model(x):
        with pyro.plate("data", 50, subsample=x):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 0.8), obs=x)

    def guide(x):
        with pyro.plate("data", 50, subsample=x):
            pyro.sample("z", dist.Normal(0.3 * x, 1.5))

    method = ImportanceSampling(300, refine_steps=30)
    evidence = pv.log_marginal(model, guide, x, method=method, memory_budget=100_000)
    error = evidence.log_marginal.values - dist.Normal(0.0, math.sqrt(1.64)).log_prob(x).numpy()
    assert (abs(error) < 5 * evidence.standard_error.values).all()


def test_a_site_in_an_inner_plate_is_refined():
    """y_m is N(0, 1) and x_m is N(y_m, 1), three of them for each datum."""
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def model(x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("inner", 3, dim=-2):
            y = pyro.sample("y", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(y, 1.0), obs=x.T)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("inner", 3, dim=-2):
            pyro.sample("y", dist.Normal(0.2 * x.T, 1.0))

    method = ImportanceSampling(200, refine_steps=30)
    evidence = pv.log_marginal(model, guide, x.T.contiguous(), method=method)
    error = evidence.log_marginal.values - dist.Normal(0.0, 2**0.5).log_prob(x).sum(0).numpy()
    assert (abs(error) < 5 * evidence.standard_error.values).all()


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="set refine_steps"):
        ImportanceSampling(100, proposal="student_t")
    with pytest.raises(ValueError, match="'normal' or 'student_t', found 'cauchy'"):
        ImportanceSampling(100, refine_steps=3, proposal="cauchy")
