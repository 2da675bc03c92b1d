r"""Run guide and model once with K particles; hand back every site's two densities.

This is the only place where programs are traced. Estimators and evidence work on its result: log-densities of
shape ``(K, B)``, one for each particle and datum, never summed over data.
"""

from pyrovae.particles.drawing import (
    draw,
    draw_encoded,
    draw_latent,
    draw_prior,
    encode,
    encoded_normal,
    guide_log_prob,
    over_plates,
    score_values,
)
from pyrovae.particles.enumeration import (
    MOST_VALUES,
    SummedParticles,
    SummedSites,
    draw_summed,
    find_supports,
    score_values_summed,
)
from pyrovae.particles.result import Draws, LatentSite, Particles, real_support
from pyrovae.particles.scoring import PARTICLE_PLATE, score
from pyrovae.particles.simulation import dream, predict, simulate

__all__ = [
    "MOST_VALUES",
    "PARTICLE_PLATE",
    "Draws",
    "LatentSite",
    "Particles",
    "SummedParticles",
    "SummedSites",
    "score_values",
    "score_values_summed",
    "draw",
    "draw_encoded",
    "draw_latent",
    "draw_prior",
    "draw_summed",
    "dream",
    "encode",
    "encoded_normal",
    "find_supports",
    "guide_log_prob",
    "over_plates",
    "predict",
    "real_support",
    "score",
    "simulate",
]
