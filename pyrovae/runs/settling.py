"""Choices of a configuration that are left to the data."""

import inspect
from dataclasses import replace
from pathlib import Path

from pyrovae.data import NAMES, Splits
from pyrovae.data.tables import frame_of
from pyrovae.likelihoods import Bernoulli, Columns
from pyrovae.models.declaration import as_plain
from pyrovae.programs import find_device
from pyrovae.runs.building import load_data
from pyrovae.runs.config import Config
from pyrovae.runs.declared import class_of, reads_table

__all__ = ["settle"]


def settle(config: Config) -> tuple[Config, Splits]:
    """The configuration with every choice made that was left to the data, and the data."""
    find_device(config.device)
    path = Path(config.data).expanduser()
    if path.exists() and config.data not in NAMES:
        config = replace(config, data=str(path.resolve()))
    config = _with_columns(config)
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


def _with_columns(config: Config) -> Config:
    """The configuration with the likelihoods of a table's columns, where ``Columns`` names none."""
    declared = config.likelihood
    if declared is None or class_of(declared) is not Columns or declared.init_args.columns:
        return config
    if not reads_table(declared, config.data):
        raise ValueError(
            f"The columns of Columns are inferred from a table (.csv, .tsv or .parquet), found "
            f"{config.data}. Declare them."
        )
    chosen = {
        "columns": config.data_columns,
        "labels": config.data_labels,
        "covariates": config.data_covariates,
    }
    frame = frame_of(Path(config.data).expanduser(), **chosen)
    inferred = Columns.infer(frame, missing=declared.init_args.missing or None)
    return replace(config, likelihood=as_plain(inferred))
