r"""Arithmetic of importance weights, in log space; tensors in, tensors out.

Shapes: ``log_w`` is ``(K, B)``, K particles for each of B data, along ``dim=0`` unless said
otherwise. :class:`RunningWeights` keeps what all of these need for weights that arrive a few at a
time.
"""

from pyrovae.weights.arithmetic import ess, leave_one_out, log_mean_exp, shared, standard_error
from pyrovae.weights.running import BATCHES, RunningWeights, jackknife
from pyrovae.weights.tail import BAD_K, pareto_k, pareto_tail, prior_share, shrunk_k, tail_size

__all__ = [
    "BAD_K",
    "BATCHES",
    "RunningWeights",
    "ess",
    "jackknife",
    "leave_one_out",
    "log_mean_exp",
    "pareto_k",
    "pareto_tail",
    "prior_share",
    "shared",
    "shrunk_k",
    "standard_error",
    "tail_size",
]
