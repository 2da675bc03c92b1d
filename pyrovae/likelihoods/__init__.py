"""Likelihoods p(x | z): each a module that, given z, gives the distribution of x."""

from pyrovae.likelihoods.base import Likelihood
from pyrovae.likelihoods.bernoulli import Bernoulli
from pyrovae.likelihoods.beta import Beta
from pyrovae.likelihoods.categorical import Categorical
from pyrovae.likelihoods.columns import Columns
from pyrovae.likelihoods.continuous_bernoulli import ContinuousBernoulli
from pyrovae.likelihoods.discretized_logistic import DiscretizedLogistic
from pyrovae.likelihoods.discretized_logistic_mixture import DiscretizedLogisticMixture
from pyrovae.likelihoods.gamma import Gamma
from pyrovae.likelihoods.gaussian import Gaussian
from pyrovae.likelihoods.laplace import Laplace
from pyrovae.likelihoods.log_normal import LogNormal
from pyrovae.likelihoods.negative_binomial import NegativeBinomial
from pyrovae.likelihoods.poisson import Poisson
from pyrovae.likelihoods.student_t import StudentT
from pyrovae.likelihoods.zero_inflated_negative_binomial import ZeroInflatedNegativeBinomial

__all__ = [
    "Bernoulli",
    "Beta",
    "Categorical",
    "Columns",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "Gamma",
    "Gaussian",
    "Laplace",
    "Likelihood",
    "LogNormal",
    "NegativeBinomial",
    "Poisson",
    "StudentT",
    "ZeroInflatedNegativeBinomial",
]
