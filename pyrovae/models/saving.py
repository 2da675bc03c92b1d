"""A model in a folder: declaration, weights and a card."""

import json
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from pyrovae.models.base import Model
from pyrovae.models.declaration import as_object
from pyrovae.models.shipping import CONFIG, WEIGHTS
from pyrovae.programs import find_device

__all__ = ["load"]


def load(
    folder: str | PathLike, *, device: str | torch.device | None = None, trust: bool = False
) -> Any:
    """The model that :meth:`vae.save <pyrovae.VAE.save>` wrote to a folder, in eval mode.

    Nothing in the folder is run: the declaration is JSON, and the weights are safetensors.

    Args:
        folder: The folder.
        device: The device to load to; default CUDA where there is any.
        trust: Whether classes that are not pyrovae's own, and not loaded already, may be imported,
            which runs their code.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If it is no folder, a file in it is damaged, the files do not belong together,
            or a class is not pyrovae's own without ``trust``.

    Example:
        >>> import tempfile
        >>> import pyrovae as pv
        >>> folder = tempfile.mkdtemp() + "/model"
        >>> pv.VAE(4, latent_dim=2).save(folder)
        >>> pv.load(folder)
        VAE(data_shape=4, latent_dim=2)
    """
    from safetensors.torch import load_file

    if Path(folder).is_file():
        raise ValueError(
            f"{folder} is a file. pv.load reads a folder that vae.save(folder) wrote. What "
            "torch.save wrote is read by torch.load(file, weights_only=False), which runs any code "
            "in it."
        )
    config, weights = Path(folder) / CONFIG, Path(folder) / WEIGHTS
    for path in (config, weights):
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} holds no saved model: it has no {path.name}. A model is saved by "
                "vae.save(folder); the folder of a run is loaded by pv.load_run."
            )
    vae = _declared(config, trust)
    try:
        tensors = load_file(weights, device="cpu")
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"Cannot read {weights}: {reason}. It is damaged.") from error
    floating = [t.dtype for t in tensors.values() if t.is_floating_point()]
    vae = vae.to(floating[0]) if floating else vae
    try:
        vae.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{weights} does not fit {config}: was one of them changed?") from error
    return vae.to(find_device(device)).eval()


def _declared(path: Path, trust: bool) -> Model:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))["model"]
    except (KeyError, RecursionError, TypeError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{path} declares no model of pyrovae: {error!r}.") from error
    try:
        with torch.random.fork_rng():
            vae = as_object(plain, str(path), trust=trust)
    except (AttributeError, RecursionError, TypeError) as error:
        raise ValueError(f"{path} declares no model of pyrovae: {error}.") from error
    if not isinstance(vae, Model):
        raise ValueError(f"{path} declares a {type(vae).__name__}, which is no model.")
    return vae
