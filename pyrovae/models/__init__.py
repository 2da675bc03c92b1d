"""Declared models: each makes two Pyro programs, ``model`` and ``guide``, of its parts."""

from pyrovae.models.base import Model
from pyrovae.models.clustering import ClusteringVAE
from pyrovae.models.conditional import ConditionalVAE
from pyrovae.models.dequantization import VariationalDequantization
from pyrovae.models.hierarchical import HierarchicalVAE
from pyrovae.models.leave_one_out import LeaveOneOut
from pyrovae.models.saving import load
from pyrovae.models.vae import VAE

__all__ = [
    "ClusteringVAE",
    "ConditionalVAE",
    "HierarchicalVAE",
    "LeaveOneOut",
    "Model",
    "VAE",
    "VariationalDequantization",
    "load",
]
