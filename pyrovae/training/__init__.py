"""Train any Pyro model and guide."""

from pyrovae.training.fit import fit
from pyrovae.training.history import History, NonFiniteLoss
from pyrovae.training.trackers import MLflow, TensorBoard, Wandb

__all__ = ["History", "MLflow", "NonFiniteLoss", "TensorBoard", "Wandb", "fit"]
