"""Sweeps: many runs of one declaration, on Optuna, and what they say of the models."""

from pyrovae.runs.sweeps.result import Sweep
from pyrovae.runs.sweeps.start import sweep

__all__ = ["Sweep", "sweep"]
