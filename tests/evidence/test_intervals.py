"""Where an interval has no end: the rule against its formula, written out."""

import math

import numpy as np
import pytest
from scipy import stats

from pyrovae.evidence.intervals import unknown

NUM, SIZE = 1000, 94  # particles, and those of the tail: 3 sqrt(1000)


def columns(k, variance, num_data):
    return {
        "pareto_k": np.full(num_data, k),
        "num_particles": np.full(num_data, NUM),
        "ess": np.full(num_data, 200.0),
        "batch_log_mean": np.zeros((num_data, 8)),
        "log_weight_variance": np.full(num_data, variance),
    }


def light(variance):
    """The k that normal log weights of this variance show."""
    z = stats.norm.isf(SIZE / NUM)
    excess = (stats.norm.pdf(z) / (SIZE / NUM) - z) * math.sqrt(variance)
    k = (1 - 1 / math.sqrt(SIZE)) * excess
    return max(k, (SIZE * k + 10 * 0.5) / (SIZE + 10))


@pytest.mark.parametrize("num_data", [1, 4])
def test_the_prior_of_k_is_no_evidence_of_a_light_tail(num_data):
    """A k above its threshold is forgiven where normal weights would show as much, beyond the part
    of its error that the prior has taken away.
    """
    k, low, high = 0.62, 0.1, 20.0
    assert unknown(columns(k, low, num_data))
    assert not unknown(columns(k, high, num_data))
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if unknown(columns(k, middle, num_data)) else (low, middle)
    error = (1 + k) / math.sqrt(SIZE * num_data)
    assert k + error > 2 / 3  # 1 - 1 / log10(K)
    assert light(high) == pytest.approx(k + error * 10 / (SIZE + 10), abs=1e-8)
    assert light(high) > k + 0.005
