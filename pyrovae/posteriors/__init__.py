"""Posteriors q(z | x): each a module that, given x, gives the distribution of z."""

from pyrovae.posteriors.base import Posterior
from pyrovae.posteriors.categorical import Categorical, RelaxedCategorical
from pyrovae.posteriors.correlated_normal import FullRankNormal, LowRankNormal
from pyrovae.posteriors.delta import Delta
from pyrovae.posteriors.diagonal_normal import DiagonalNormal
from pyrovae.posteriors.flow import Flow
from pyrovae.posteriors.mixture import Mixture
from pyrovae.posteriors.power_spherical import PowerSpherical

__all__ = [
    "Categorical",
    "Delta",
    "DiagonalNormal",
    "Flow",
    "FullRankNormal",
    "LowRankNormal",
    "Mixture",
    "Posterior",
    "PowerSpherical",
    "RelaxedCategorical",
]
