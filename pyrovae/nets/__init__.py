"""Network recipes: what to build, before the sizes are known. The VAE gives the sizes."""

from pyrovae.nets.conv import Conv, Residual
from pyrovae.nets.dense import MLP, GatedMLP, Log1p
from pyrovae.nets.recipe import Recipe, last_bias

__all__ = ["Conv", "GatedMLP", "Log1p", "MLP", "Recipe", "Residual", "last_bias"]
