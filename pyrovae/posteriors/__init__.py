"""Posteriors q(z | x): each a module that, given x, gives the distribution of z."""

from pyrovae.posteriors.base import Posterior
from pyrovae.posteriors.delta import Delta
from pyrovae.posteriors.diagonal_normal import DiagonalNormal

__all__ = ["Delta", "DiagonalNormal", "Posterior"]
