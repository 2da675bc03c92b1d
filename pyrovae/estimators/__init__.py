"""ELBO estimators: each a :class:`pyro.infer.ELBO`, each one short class."""

from pyrovae.estimators.base import Estimator, Terms
from pyrovae.estimators.elbo import ELBO, AnalyticKL
from pyrovae.estimators.iwae import IWAE

__all__ = ["AnalyticKL", "ELBO", "Estimator", "IWAE", "Terms"]
