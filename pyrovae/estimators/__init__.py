"""ELBO estimators: each a :class:`pyro.infer.ELBO`, each one short class."""

from pyrovae.estimators.base import Estimator, Terms
from pyrovae.estimators.elbo import ELBO, AnalyticKL
from pyrovae.estimators.enumerated import EnumELBO
from pyrovae.estimators.iwae import CIWAE, IWAE, MIWAE, PIWAE
from pyrovae.estimators.jackknife import Jackknife
from pyrovae.estimators.kl_control import Capacity, FreeBits
from pyrovae.estimators.path import STL, STLIWAE, DReG, RWSDReG
from pyrovae.estimators.renyi import Renyi
from pyrovae.estimators.rws import RWS
from pyrovae.estimators.score import VIMCO, ScoreELBO
from pyrovae.estimators.total_correlation import BetaTC
from pyrovae.estimators.tvo import TVO

__all__ = [
    "AnalyticKL",
    "BetaTC",
    "CIWAE",
    "Capacity",
    "DReG",
    "ELBO",
    "EnumELBO",
    "Estimator",
    "FreeBits",
    "IWAE",
    "Jackknife",
    "MIWAE",
    "PIWAE",
    "RWS",
    "RWSDReG",
    "Renyi",
    "STL",
    "STLIWAE",
    "ScoreELBO",
    "TVO",
    "Terms",
    "VIMCO",
]
