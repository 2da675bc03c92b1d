"""Compare models by their evidence, and estimators at fixed weights."""

from pyrovae.compare.comparison import EstimatorComparison
from pyrovae.compare.estimators import compare_estimators
from pyrovae.compare.models import compare_models
from pyrovae.compare.table import ModelComparison

__all__ = ["EstimatorComparison", "ModelComparison", "compare_estimators", "compare_models"]
