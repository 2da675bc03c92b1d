"""Compare models by their evidence, and estimators at fixed weights."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyrovae.compare.estimators import EstimatorComparison, compare_estimators
    from pyrovae.compare.models import ModelComparison, compare_models

# Each loads on first use: neither needs what the other imports.
_NAMES = {
    "EstimatorComparison": "estimators",
    "ModelComparison": "models",
    "compare_estimators": "estimators",
    "compare_models": "models",
}

__all__ = ["EstimatorComparison", "ModelComparison", "compare_estimators", "compare_models"]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'pyrovae.compare' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"pyrovae.compare.{_NAMES[name]}"), name)
    globals()[name] = value
    return value
