"""Choices of a configuration that are left to the data."""

import inspect
from dataclasses import replace
from pathlib import Path

from pyrovae.data import NAMES, Splits
from pyrovae.likelihoods import Bernoulli
from pyrovae.runs.config import Config, load_data

__all__ = ["settle"]


def settle(config: Config) -> tuple[Config, Splits]:
    """The configuration with every choice made that was left to the data, and the data."""
    path = Path(config.data).expanduser()
    if path.exists() and config.data not in NAMES:
        config = replace(config, data=str(path.resolve()))
    taken = inspect.signature(config.model_class).parameters
    if config.condition_dim is None and "condition_dim" in taken:
        # From all the data there are: a limited part may lack a label.
        size = load_data(replace(config, limit=None, binarize="none")).condition_dim
        config = replace(config, condition_dim=size)
    splits = load_data(replace(config, dequantize=False))
    discrete = getattr(config.build("likelihood"), "discrete", False)
    if config.dequantize and discrete:
        raise ValueError(
            f"dequantize makes real numbers, and {config.build('likelihood')!r} gives "
            "probabilities of levels. Leave it out, or take a density such as Gaussian."
        )
    if config.binarize == "auto":
        grey = isinstance(config.build("likelihood"), Bernoulli) and splits.is_grey
        if grey and splits.is_colour:
            raise ValueError(
                f"{splits.name} holds colour images, and Bernoulli is a distribution over black "
                "and white. Take --likelihood DiscretizedLogistic or DiscretizedLogisticMixture, "
                "which are distributions over colour levels, or say --binarize threshold to train "
                "on thresholded colours."
            )
        config = replace(config, binarize="threshold" if grey else "none")
    return config, load_data(config)
