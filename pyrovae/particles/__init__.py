r"""Run guide and model once with K particles; hand back every site's two densities.

This is the only place where programs are traced. Estimators and evidence work on its result:
log-densities of shape ``(K, B)``, one for each particle and datum, never summed over data.
"""

from pyrovae.particles.agreement import settle
from pyrovae.particles.drawing import (
    draw,
    draw_encoded,
    draw_latent,
    draw_prior,
    encode,
    encoded_normal,
    guide_log_prob,
    score_values,
)
from pyrovae.particles.enumeration import SummedParticles, draw_summed, score_values_summed
from pyrovae.particles.matching import check_right_most
from pyrovae.particles.result import Draws, Particles
from pyrovae.particles.running import (
    PARTICLE_PLATE,
    InvalidParameters,
    NestedPlates,
    is_point,
    nesting_of,
)
from pyrovae.particles.scoring import over_plates, score
from pyrovae.particles.separate import WRAPPERS
from pyrovae.particles.simulation import dream, predict, simulate
from pyrovae.particles.site import LatentSite, real_support
from pyrovae.particles.supports import MOST_VALUES, SummedSites, every_value, find_supports
from pyrovae.particles.trial import runs_separately

__all__ = [
    "MOST_VALUES",
    "PARTICLE_PLATE",
    "Draws",
    "InvalidParameters",
    "LatentSite",
    "NestedPlates",
    "Particles",
    "SummedParticles",
    "SummedSites",
    "WRAPPERS",
    "score_values",
    "score_values_summed",
    "check_right_most",
    "draw",
    "draw_encoded",
    "draw_latent",
    "draw_prior",
    "draw_summed",
    "dream",
    "encode",
    "encoded_normal",
    "every_value",
    "find_supports",
    "guide_log_prob",
    "is_point",
    "nesting_of",
    "over_plates",
    "predict",
    "real_support",
    "runs_separately",
    "score",
    "settle",
    "simulate",
]
