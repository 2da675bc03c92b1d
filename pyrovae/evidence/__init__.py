"""The marginal likelihood of held-out data, with its error and a diagnosis."""

from pyrovae.evidence.analysis.bdmc import Sandwich, bdmc
from pyrovae.evidence.analysis.calibration import Calibration, calibration
from pyrovae.evidence.analysis.compression import annealed_rate_distortion
from pyrovae.evidence.analysis.conditional import Imputation, impute, observe_part
from pyrovae.evidence.analysis.convergence import Convergence, convergence
from pyrovae.evidence.analysis.nats import Nats, rate_distortion, where_the_nats_go
from pyrovae.evidence.log_marginal import log_marginal
from pyrovae.evidence.methods.ais import AIS
from pyrovae.evidence.methods.importance import ImportanceSampling
from pyrovae.evidence.result import Evidence

__all__ = [
    "AIS",
    "Calibration",
    "Convergence",
    "Evidence",
    "Imputation",
    "ImportanceSampling",
    "Nats",
    "Sandwich",
    "bdmc",
    "calibration",
    "convergence",
    "impute",
    "log_marginal",
    "observe_part",
    "annealed_rate_distortion",
    "rate_distortion",
    "where_the_nats_go",
]
