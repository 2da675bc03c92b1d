"""The errors that tables print are those that repeated runs show."""

import math

import torch
from scipy.stats import t as student

from pyrovae.compare import compare_estimators
from pyrovae.estimators import ELBO, IWAE
from pyrovae.evidence import where_the_nats_go
from pyrovae.testing import LinearGaussian

REPEATS = 80
# Of 80 intervals of 95 %, 76 hold the truth on average, with a standard deviation of 1.95: four of
# those below.
FEWEST = 68


def test_the_error_of_a_bound_covers():
    oracle = LinearGaussian(shift=0.5, stretch=1.3)
    x = oracle.sample(3)
    exact = (oracle.log_prob(x) - oracle.kl_to_posterior(x)).mean().item()
    log_px = oracle.log_prob(x).mean().item()
    reach, held, errors, bounds = student.ppf(0.975, 15), 0, [], []
    for seed in range(REPEATS):
        table = compare_estimators(
            oracle.model, oracle.guide, x, {"ELBO": ELBO(2), "IWAE": IWAE(4)}, reference=log_px,
            num_replicates=16, gradient_reference=False, seed=1000 * seed,
        ).dataset.sel(estimator="ELBO")  # fmt: skip
        errors.append(float(table["bound_error"]))
        bounds.append(float(table["bound"]))
        held += abs(bounds[-1] - exact) < reach * errors[-1]
    assert held >= FEWEST
    # And it is no larger than it need be: the spread over runs is what each run says of itself.
    spread = torch.tensor(bounds).std().item()
    mean_square = math.sqrt(torch.tensor(errors).square().mean().item())
    # Both are estimated from 80 values: a relative error of 8 % each, four of them together.
    assert 0.65 < mean_square / spread < 1.55


def test_the_errors_of_the_parts_of_the_elbo_cover_the_population():
    oracle = LinearGaussian(shift=0.5, stretch=1.3)
    many = oracle.sample(200_000, seed=99)
    elbo = (oracle.log_prob(many) - oracle.kl_to_posterior(many)).mean().item()
    reach, held = student.ppf(0.975, 39), 0
    for seed in range(REPEATS):
        nats = where_the_nats_go(
            oracle.model, oracle.guide, oracle.sample(40, seed=seed), num_particles=4, seed=seed
        )
        held += abs(nats.mean("elbo") - elbo) < reach * nats.error("elbo")
    assert held >= FEWEST
