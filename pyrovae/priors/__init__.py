"""Priors p(z): each a module that, called, gives a distribution."""

from pyrovae.priors.base import Prior
from pyrovae.priors.categorical import Categorical, RelaxedCategorical
from pyrovae.priors.exemplar import Exemplar
from pyrovae.priors.flow import Flow
from pyrovae.priors.gaussian_mixture import GaussianMixture
from pyrovae.priors.hyperspherical_uniform import HypersphericalUniform
from pyrovae.priors.location_scale import Laplace, StudentT
from pyrovae.priors.standard_normal import StandardNormal
from pyrovae.priors.vamp import Vamp

__all__ = [
    "Categorical",
    "Exemplar",
    "Flow",
    "GaussianMixture",
    "HypersphericalUniform",
    "Laplace",
    "Prior",
    "RelaxedCategorical",
    "StandardNormal",
    "StudentT",
    "Vamp",
]
