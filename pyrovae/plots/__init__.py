"""Figures: one function each, which draws on axes and returns them. They need matplotlib."""

from pyrovae.plots.comparisons import estimators, forest, training_time
from pyrovae.plots.evidence import convergence, evidence, pareto_k, ranks, sandwich
from pyrovae.plots.images import reconstructions, samples
from pyrovae.plots.latent import codes, interpolation, manifold, traversal
from pyrovae.plots.nats import nats, rate_distortion, units
from pyrovae.plots.style import style
from pyrovae.plots.tables import marginals
from pyrovae.plots.training import learning_curve

__all__ = [
    "codes",
    "convergence",
    "estimators",
    "evidence",
    "forest",
    "interpolation",
    "learning_curve",
    "manifold",
    "marginals",
    "nats",
    "pareto_k",
    "ranks",
    "rate_distortion",
    "reconstructions",
    "samples",
    "sandwich",
    "style",
    "training_time",
    "traversal",
    "units",
]
