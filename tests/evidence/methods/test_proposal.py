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


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="set refine_steps"):
        ImportanceSampling(100, proposal="student_t")
    with pytest.raises(ValueError, match="'normal' or 'student_t', found 'cauchy'"):
        ImportanceSampling(100, refine_steps=3, proposal="cauchy")
