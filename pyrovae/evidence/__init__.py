"""The marginal likelihood of held-out data, with its error and a diagnosis."""

from pyrovae.evidence.importance import ImportanceSampling
from pyrovae.evidence.marginal import log_marginal
from pyrovae.evidence.result import Evidence

__all__ = ["Evidence", "ImportanceSampling", "log_marginal"]
