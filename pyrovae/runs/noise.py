"""Noise of grey levels that a run learns with its model."""

from typing import Any

import torch

from pyrovae.data import Splits
from pyrovae.models import Model, VariationalDequantization

__all__ = ["add_noise", "set_levels"]


def add_noise(vae: Model) -> None:
    """Give a model the noise of variational dequantisation, whose weights are then saved with its
    own; :func:`set_levels` or loaded weights say how many levels there are.
    """
    pair = VariationalDequantization(vae.model, vae.guide, vae.data_shape, num_levels=2)
    vae.dequantization = pair.posterior
    vae.register_buffer("num_levels", torch.tensor(2))
    vars(vae)["pair"] = pair  # no submodule: the pair has the model as one


def set_levels(vae: Model, splits: Splits) -> None:
    """Tell the noise of a model how many levels the data have.

    Raises:
        ValueError: If the data hold no levels.
    """
    if not splits.holds_levels or splits.levels is None:
        raise ValueError(
            f"{splits.name} does not hold grey levels, so there is nothing to dequantise. Leave "
            "out --dequantize."
        )
    buffers: Any = vae
    buffers.num_levels.fill_(splits.levels)
