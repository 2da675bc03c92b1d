"""Network recipes: they say what to build, and the VAE says for which sizes."""

from pyrovae.nets.conv import Conv, Residual
from pyrovae.nets.dense import MLP, GatedMLP, Log1p
from pyrovae.nets.onehot import OneHot
from pyrovae.nets.precision import Bfloat16Networks
from pyrovae.nets.recipe import Recipe, last_bias

__all__ = [
    "Bfloat16Networks",
    "Conv",
    "GatedMLP",
    "Log1p",
    "MLP",
    "OneHot",
    "Recipe",
    "Residual",
    "last_bias",
]
