"""Oracles shared by the tests of the estimators."""

import pytest
from torch import Tensor

from pyrovae.testing import DiscreteMixture, LinearGaussian


@pytest.fixture
def exact() -> tuple[LinearGaussian, Tensor]:
    """A linear Gaussian whose guide is the exact posterior, and three data."""
    oracle = LinearGaussian()
    return oracle, oracle.sample(3)


@pytest.fixture
def spoilt() -> tuple[LinearGaussian, Tensor]:
    """A linear Gaussian whose guide is off in mean and scale, and three data."""
    oracle = LinearGaussian(shift=0.5, stretch=1.3)
    return oracle, oracle.sample(3)


@pytest.fixture
def mixture() -> tuple[DiscreteMixture, Tensor]:
    """A discrete mixture with a poor guide, and three data."""
    oracle = DiscreteMixture()
    return oracle, oracle.sample(3)
