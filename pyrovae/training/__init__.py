"""Train any Pyro model and guide."""

from pyrovae.training.fit import fit
from pyrovae.training.history import History, NonFiniteLoss
from pyrovae.training.tensorboard import TensorBoard

__all__ = ["History", "NonFiniteLoss", "TensorBoard", "fit"]
