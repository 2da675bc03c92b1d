"""The whole state of a training run as one file that is either complete or refused."""

import hashlib
import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from pyrovae.files import written_whole

__all__ = ["exists", "load", "random_states", "remove", "restore_random_states", "save"]

_FORMAT = b"pyrovae checkpoint 2 "


def save(state: dict[str, Any], path: Path) -> None:
    """Write a state beside ``path``, then give it that name; the one before it is kept as
    ``path.previous``.

    Whenever the process ends, at least one of the two files is complete.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    with written_whole(path) as part:
        with part.open("wb") as file:
            file.write(_FORMAT + hashlib.sha256(content).hexdigest().encode() + b"\n")
            file.write(content)
        if path.exists():
            path.replace(previous_of(path))


def load(path: Path) -> tuple[dict[str, Any], str | None]:
    """Read the state; from the previous file, with a sentence that says so, where the newer one is
    damaged.

    Raises:
        PermissionError: If the file may not be read.
        ValueError: If neither file is a complete checkpoint.
    """
    try:
        return _read(path), None
    except PermissionError as error:
        raise PermissionError(f"{path} may not be read by this user.") from error
    except (OSError, ValueError) as error:
        try:
            state = _read(previous_of(path))
        except (OSError, ValueError):
            raise ValueError(f"{path} is not a checkpoint of fit ({error}). Remove it.") from error
        if isinstance(error, FileNotFoundError):  # the process ended between two renames
            return state, None
        return state, f"{path} is damaged ({error}); going on from the checkpoint before it."


def exists(path: Path) -> bool:
    """Whether there is a checkpoint to go on from: the last one, or the one before it."""
    return path.exists() or previous_of(path).exists()


def remove(path: Path) -> None:
    """Delete both files, where they are."""
    for file in (path, previous_of(path)):
        file.unlink(missing_ok=True)


def previous_of(path: Path) -> Path:
    """Where the checkpoint before the last one lies."""
    return path.with_name(path.name + ".previous")


def _read(path: Path) -> dict[str, Any]:
    header, _, content = path.read_bytes().partition(b"\n")
    if not header.startswith(b"pyrovae checkpoint "):
        raise ValueError("it does not begin like one")
    if not header.startswith(_FORMAT):
        raise ValueError("it is of another version of pyrovae")
    if hashlib.sha256(content).hexdigest().encode() != header[len(_FORMAT) :]:
        raise ValueError("its checksum does not match its content")
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whole, but written by something else
        said = str(error).strip().splitlines()[:1]
        raise ValueError(f"its content cannot be read: {''.join(said)}") from error


def random_states(device: torch.device, loader: Any = None) -> dict[str, Any]:
    """Every random state that training may draw from, as values that load without running code."""
    numpy: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": {
            "key": torch.from_numpy(numpy["state"]["key"].astype(np.int64)),
            "pos": int(numpy["state"]["pos"]),
            "has_gauss": int(numpy["has_gauss"]),
            "gauss": float(numpy["gauss"]),
        },
        "python": [version, list(internal), gauss],
        "loader": [generator.get_state() for generator in _generators(loader)],
    }


def restore_random_states(states: dict[str, Any], device: torch.device, loader: Any = None) -> None:
    """Put back what :func:`random_states` gave."""
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
    numpy = states["numpy"]
    inner = {"key": numpy["key"].numpy().astype(np.uint32), "pos": numpy["pos"]}
    whole = {
        "bit_generator": "MT19937",
        "state": inner,
        "has_gauss": numpy["has_gauss"],
        "gauss": numpy["gauss"],
    }
    np.random.set_state(whole)  # noqa: NPY002
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    for generator, state in zip(_generators(loader), states["loader"], strict=False):
        generator.set_state(state)


def _generators(loader: Any) -> list[torch.Generator]:
    """The generators that a loader, its sampler and its batch sampler draw from, each once."""
    if not isinstance(loader, DataLoader):
        return []
    batches = getattr(loader, "batch_sampler", None)
    holders = (loader, loader.sampler, batches, getattr(batches, "sampler", None))
    found = [getattr(holder, "generator", None) for holder in holders]
    return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())
