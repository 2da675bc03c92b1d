"""What a configuration declares, made: the data and the model."""

import inspect

import torch

from pyrovae.data import Splits, load
from pyrovae.models.base import Model
from pyrovae.runs.config import Config
from pyrovae.runs.declared import PARTS, arguments_of, reads_table
from pyrovae.runs.noise import add_noise

__all__ = ["declare", "load_data"]


def load_data(config: Config) -> Splits:
    """The data that a configuration declares, binarised and limited as it says.

    Example:
        >>> import tempfile, numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/mine.npy", np.zeros((60, 3), np.float32))
        ...     load_data(Config(data=f"{folder}/mine.npy", valid_size=10, test_size=20))
        Splits(mine: train 30, valid 10, test 20; each (3,))
    """
    as_columns = reads_table(config.likelihood, config.data)
    splits = load(
        config.data,
        root=config.data_root,
        download=config.download,
        size=config.data_size,
        valid_size=config.valid_size,
        test_size=config.test_size,
        seed=config.data_seed,
        columns=config.data_columns,
        labels=config.data_labels,
        covariates=config.data_covariates,
        layer=config.data_layer,
        reading=config.build("likelihood").read if as_columns else None,
    )
    if config.binarize not in ("none", "auto"):
        splits = splits.binarize(config.binarize, seed=config.data_seed)
    if config.dequantize in (True, "uniform"):
        splits = splits.dequantize(seed=config.data_seed)
    # After binarisation: a few test images have the bits that they have among all.
    return splits if config.limit is None else splits.take(config.limit, seed=config.data_seed)


def declare(config: Config, data_shape: tuple[int, ...]) -> Model:
    """The model that a configuration declares, with the initial weights of its seed.

    Raises:
        Exception: What the model and its parts raise for their arguments.

    Example:
        >>> vae = declare(Config(latent_dim=2, prior="Vamp"), data_shape=(8, 8))
        >>> vae.latent_dim, vae.prior
        (2, Vamp())
    """
    cls = config.model_class
    sizes = {
        "data_shape": data_shape,
        "latent_dim": config.latent_dim,
        "latent_dims": config.latent_dim,
        "condition_dim": config.condition_dim,
    }
    taken = inspect.signature(cls).parameters
    arguments = {name: size for name, size in sizes.items() if name in taken}
    arguments |= {part: config.build(part) for part in PARTS if part in taken}
    arguments |= arguments_of(config.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        vae = cls(**arguments)
        if config.dequantize == "variational":
            add_noise(vae)
        return vae
