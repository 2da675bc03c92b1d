"""Train any Pyro model and guide."""

from pyrovae.training.fit import fit
from pyrovae.training.history import History, NonFiniteLoss

__all__ = ["History", "NonFiniteLoss", "fit"]
