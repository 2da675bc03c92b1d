"""Adaptive effort: unbiased in p(x), and data that miss the target are reported."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import torch

import pyrovae as pv
from pyrovae.evidence import ImportanceSampling


def model(x):
    with pyro.plate("data", len(x)):
        pyro.sample("c", dist.Bernoulli(torch.full_like(x, 0.5)))
        pyro.sample("x", dist.Normal(torch.zeros_like(x), 1.0), obs=x)


def guide(x):
    """A value that counts half is drawn once in fifty times: most sets of 25 weights look as if
    they had no error.
    """
    with pyro.plate("data", len(x)):
        pyro.sample("c", dist.Bernoulli(torch.full_like(x, 0.02)))


def adaptive(x, **options):
    method = ImportanceSampling(25, target_standard_error=0.1, enumerate=False, **options)
    return pv.log_marginal(model, guide, x, method=method)


def test_unbiased_in_p_of_x():
    copies, x = 6000, torch.zeros(6000).double()  # equal data have streams of their own
    evidence = adaptive(x, max_particles=1600)
    ratio = np.exp(evidence.log_marginal.values + 0.5 * math.log(2 * math.pi))
    assert len(np.unique(evidence.num_particles)) == 2
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(copies)
    assert 4 * ratio.std() / math.sqrt(copies) < 0.06


def test_the_number_of_particles_does_not_depend_on_the_weights_that_count():
    """For a given number, weights are as they would be for that number fixed beforehand."""
    evidence = adaptive(torch.zeros(3000).double(), max_particles=400)
    few = evidence.num_particles.values == 25
    hits = np.exp(evidence.log_marginal.values[few] + 0.5 * math.log(2 * math.pi)) > 0.6
    chance = 1 - 0.98**25  # that 25 draws meet the rare value at least once
    assert abs(hits.mean() - chance) < 4 * math.sqrt(chance * (1 - chance) / few.sum())
    missed = evidence.missed_target()
    assert set(np.flatnonzero(few)[hits]) <= set(missed)  # reported, and given no more
    assert f"{len(missed)} of 3000 data above it" in repr(evidence)
