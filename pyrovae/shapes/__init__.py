"""Whole shapes: the VAE, and models and guides of more than one latent, or of more than x."""

from pyrovae.shapes.clustering import ClusteringVAE
from pyrovae.shapes.conditional import ConditionalVAE
from pyrovae.shapes.hierarchical import HierarchicalVAE
from pyrovae.vae import VAE

__all__ = ["ClusteringVAE", "ConditionalVAE", "HierarchicalVAE", "VAE"]
