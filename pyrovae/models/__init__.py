"""Whole shapes: the VAE, and models and guides of more than one latent, or of more than x."""

from pyrovae.models.clustering import ClusteringVAE
from pyrovae.models.conditional import ConditionalVAE
from pyrovae.models.hierarchical import HierarchicalVAE
from pyrovae.models.vae import VAE

__all__ = ["ClusteringVAE", "ConditionalVAE", "HierarchicalVAE", "VAE"]
