"""Every interval of evidence holds the exact value as often as it says, over many independent runs.

Runs are made at once, as copies of the data, which have random streams of their own: as good as other seeds.
``often`` allows three binomial errors; what else is allowed, and why, is said where it is.
"""

import math

import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae.compare import compare_models
from pyrovae.evidence import AIS, ImportanceSampling, bdmc
from pyrovae.testing import LinearGaussian

SPOILED = LinearGaussian(shift=0.5, stretch=1.4)
PROBS = (0.5, 0.8, 0.95)


def exact(oracle, x) -> np.ndarray:
    return oracle.log_prob(x).detach().numpy()


def runs_of(evidence, size):
    """The evidence of consecutive data, ``size`` at a time."""
    starts = range(0, len(evidence), size)
    return [
        pv.Evidence(evidence.dataset.isel(datum=slice(start, start + size))) for start in starts
    ]


def hit_rate(intervals, truth) -> float:
    truth = np.broadcast_to(truth, len(intervals))
    return float(
        np.mean([low <= value <= high for (low, high), value in zip(intervals, truth, strict=True)])
    )


def often(hits: float, prob: float, runs: int, *, below: float = 0.0, above: float = 0.0) -> bool:
    slack = 3 * math.sqrt(prob * (1 - prob) / runs)
    return prob - slack - below < hits < prob + slack + above


def covariance(oracle) -> torch.Tensor:
    with torch.no_grad():
        noise = oracle.log_noise.exp() ** 2 * torch.eye(len(oracle.bias), dtype=torch.float64)
        return oracle.weight @ oracle.weight.T + noise


def law(oracle) -> torch.distributions.MultivariateNormal:
    return torch.distributions.MultivariateNormal(oracle.bias.detach(), covariance(oracle))


@pytest.mark.parametrize("num_particles", [60, 1000])
def test_each_datum(num_particles):
    """The interval of one datum; weights at K = 60 are still skewed, and the debiased end allows for it."""
    x, copies = SPOILED.sample(8, seed=1), 50
    evidence = pv.log_marginal(
        SPOILED.model, SPOILED.guide, x.repeat(copies, 1), num_particles=num_particles
    )
    truth, alone = np.tile(exact(SPOILED, x), copies), runs_of(evidence, 1)
    for prob in PROBS:
        assert often(hit_rate([run.interval(prob) for run in alone], truth), prob, 400, above=0.02)


@pytest.mark.parametrize(("error", "num_particles"), [("test_set", 2), ("both", 30)])
def test_mean_over_all_data_of_a_kind(error, num_particles):
    """The mean of log p(x) over the model's own data is minus its entropy; each run has 100 new data."""
    oracle = (
        LinearGaussian() if error == "test_set" else SPOILED
    )  # with and without Monte Carlo error
    x = oracle.sample(200 * 100, seed=2)
    evidence = pv.log_marginal(oracle.model, oracle.guide, x, num_particles=num_particles)
    truth = -law(oracle).entropy().item()
    for prob in PROBS:
        hits = hit_rate([run.interval(prob, error) for run in runs_of(evidence, 100)], truth)
        # log p(x) is skewed like a chi-square of 5, and the spread is that of 100 data: a normal quantile is a bit low.
        assert often(hits, prob, 200, below=0.01, above=0.02)


def test_monte_carlo_alone_is_not_the_test_sets_error():
    """Else the intervals above could be wide for a wrong reason."""
    evidence = pv.log_marginal(
        SPOILED.model, SPOILED.guide, SPOILED.sample(20 * 100, seed=2), num_particles=30
    )
    truth = -law(SPOILED).entropy().item()
    assert hit_rate([run.interval(0.95) for run in runs_of(evidence, 100)], truth) < 0.5


@pytest.mark.parametrize(
    ("oracle", "target"),
    [(SPOILED, 0.05), (LinearGaussian(shift=0.7), 0.05)],
    ids=["wide", "shifted"],
)
def test_adaptive_effort(oracle, target):
    x, copies = oracle.sample(8, seed=1), 250
    evidence = pv.log_marginal(
        oracle.model,
        oracle.guide,
        x.repeat(copies, 1),
        num_particles=50,
        target_standard_error=target,
        max_particles=12_800,
    )
    # Data whose pilot promised too much are reported, and not given more: that would be biased.
    assert len(evidence.missed_target()) < 0.03 * len(evidence)
    assert len(np.unique(evidence.num_particles)) > 1
    truth = exact(oracle, x)
    for prob in PROBS:
        hits = hit_rate([run.interval(prob) for run in runs_of(evidence, 8)], truth.mean())
        assert often(hits, prob, copies, above=0.03)
    # Weights that stopped themselves were off by a tenth of a standard error or more: here, on 2,000 estimates.
    ratio = np.exp(evidence.log_marginal.values - np.tile(truth, copies)) - 1
    units = evidence.standard_error.values.mean()
    assert abs(ratio.mean()) < 3 * ratio.std() / math.sqrt(ratio.size) + 0.03 * units


@pytest.mark.parametrize("error", ["both", "test_set", "monte_carlo"])
def test_difference_between_models(error):
    """For data of the first, the mean difference from the second is KL(first || second); each run has 60 new data.

    With "test_set", log p(x) is known; with "monte_carlo" the truth is the difference on the run's own data.
    """
    spoil = {} if error == "test_set" else {"shift": 0.4, "stretch": 1.2}
    first, second = LinearGaussian(**spoil), LinearGaussian(noise=0.8, **spoil)
    x = first.sample(200 * 60, seed=3)
    evidence = {
        name: pv.log_marginal(
            owner.model, owner.guide, x, num_particles=2 if error == "test_set" else 100, seed=seed
        )
        for seed, (name, owner) in enumerate(
            (("first", first), ("second", second))
        )  # of one seed, errors would cancel
    }
    known = (exact(first, x) - exact(second, x)).reshape(200, 60).mean(1)
    if error != "monte_carlo":
        known = torch.distributions.kl_divergence(law(first), law(second)).item()
    pairs = zip(*(runs_of(value, 60) for value in evidence.values()), strict=True)
    tables = [
        compare_models({"first": one, "second": two}, prob=0.8, error=error).dataset
        for one, two in pairs
    ]
    rows = [table.sel(model="first", reference="second") for table in tables]
    hits = hit_rate([(float(row["lower"]), float(row["upper"])) for row in rows], known)
    # Biases of the two estimates cancel but for a tenth of the error; 60 data in place of a normal law.
    assert often(hits, 0.8, 200, below=0.02, above=0.02)


@pytest.mark.parametrize(
    "method",
    [
        ImportanceSampling(60),
        AIS(6, 8, start="guide", num_leapfrog=3),
        pytest.param(AIS(20, 16, num_leapfrog=5), marks=pytest.mark.slow),
    ],
    ids=["importance", "guide", "prior"],
)
def test_sandwich(method):
    """100 runs of 10 simulated data each: each side holds the truth, and so does the bracket of both."""
    whole = bdmc(
        SPOILED.model,
        SPOILED.guide,
        num_data=1000,
        method=method,
        data=torch.zeros(1000, 5).double(),
    )
    truth = exact(SPOILED, whole.data[0]).reshape(100, 10).mean(1)
    sides = zip(runs_of(whole.below, 10), runs_of(whole.above, 10), strict=True)
    runs = [pv.evidence.Sandwich(below, above, ()) for below, above in sides]
    for prob in PROBS:
        slack = 3 * math.sqrt(prob * (1 - prob) / 100)
        assert hit_rate([run.below.interval(prob) for run in runs], truth) > prob - slack
        assert hit_rate([run.above.interval(prob) for run in runs], truth) > prob - slack
        assert hit_rate([run.interval(prob) for run in runs], truth) > prob - slack
    assert whole.lower.mean() < truth.mean() < whole.upper.mean()
