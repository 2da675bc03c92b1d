"""Priors p(z): each a module that, when called, gives the distribution."""

from pyrovae.priors.base import Prior
from pyrovae.priors.standard_normal import StandardNormal

__all__ = ["Prior", "StandardNormal"]
