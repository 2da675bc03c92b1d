"""The marginal likelihood of held-out data, with its error and a diagnosis."""

from pyrovae.evidence.ais import AIS
from pyrovae.evidence.bdmc import Sandwich, bdmc
from pyrovae.evidence.importance import ImportanceSampling
from pyrovae.evidence.marginal import log_marginal
from pyrovae.evidence.result import Evidence

__all__ = ["AIS", "Evidence", "ImportanceSampling", "Sandwich", "bdmc", "log_marginal"]
