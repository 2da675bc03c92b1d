"""What a run folder must hold: checksums of its files and of the data that it was trained on."""

import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

import pyrovae
from pyrovae import files

__all__ = ["FORMAT", "Manifest", "fingerprint", "versions"]

FORMAT = 1
"""The version of the files of a run folder."""

_NAME = "manifest.json"
_WHOLE = 1 << 30  # bytes; of larger data rows at equal distances are taken
_ROWS = 4096


class Manifest:
    """The file ``manifest.json`` of a run folder.

    Args:
        folder: The run folder.

    Raises:
        ValueError: If the file is damaged, or of a newer version of pyrovae.
    """

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / _NAME
        self.content: dict[str, Any] = {}
        if self.exists:
            self.content = self._read()

    @property
    def exists(self) -> bool:
        """Whether the folder has a manifest."""
        return self.path.exists()

    def record(self, *paths: Path, data: Mapping[str, Tensor] | None = None) -> None:
        """Note files of the folder as they are now, and the arrays of the data."""
        self.content = self._read() if self.exists else {}  # another command may have added to it
        listed = self.content.get("files", {}) | {path.name: _file(path) for path in paths}
        self.content |= {"format": FORMAT, "files": listed, "versions": versions()}
        if data is not None:
            self.content["data"] = {name: fingerprint(array) for name, array in data.items()}
        files.write(self.path, json.dumps(self.content, indent=1) + "\n")

    def check(self, *paths: Path, strict: bool = True) -> None:
        """Raise a ValueError if a file differs from what was noted of it. A folder without a
        manifest is not checked, nor, unless ``strict``, is a file of which nothing was noted.
        """
        for path in paths if self.content else ():
            noted = self.content["files"].get(path.name)
            if noted is None:
                if not strict:
                    continue
                raise ValueError(
                    f"{path} does not stand in {self.path}: another program wrote it, or the "
                    "command that did was interrupted. Run that command again."
                )
            if _file(path) != noted:
                raise ValueError(
                    f"{path} is not the file that the run wrote: its checksum differs from that in "
                    f"{_NAME}. It was changed or damaged; put back a copy, or train again."
                )

    def check_data(self, data: Mapping[str, Tensor], source: str) -> None:
        """Raise a ValueError if the data are not those that the run was trained on."""
        for name, noted in self.content.get("data", {}).items():
            found = fingerprint(data[name]) if name in data else None
            if found == noted:
                continue
            shapes = [f"{d['shape']} {d['dtype']}" if d else "nothing" for d in (noted, found)]
            how = "other values" if shapes[0] == shapes[1] else f"{shapes[1]}, not {shapes[0]}"
            raise ValueError(
                f"The data at {source} are not those that the run {self.folder} was trained on: "
                f"its array '{name}' now holds {how}. Put the data back as they were, or train "
                "again."
            )

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            newer = content["format"] > FORMAT
            parts = [content.get(name, {}) for name in ("data", "versions")]
            if not newer and not all(isinstance(part, dict) for part in (content["files"], *parts)):
                raise TypeError
        except PermissionError as error:
            raise PermissionError(f"{self.path} may not be read by this user.") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{self.path} is damaged. Put back a copy, or remove it to use the run unchecked."
            ) from error
        if newer:
            raise ValueError(
                f"{self.folder} was written by a newer version of pyrovae: its format is "
                f"{content['format']}, and this version reads formats up to {FORMAT}. Update "
                "pyrovae."
            )
        return content


def fingerprint(array: Tensor) -> dict[str, Any]:
    """Shape, dtype and SHA-256 of an array's content; beyond 1 GiB of 4,096 rows at equal
    distances.
    """
    found: dict[str, Any] = {"shape": list(array.shape), "dtype": str(array.dtype)}
    if array.numel() * array.element_size() > _WHOLE:
        array = array[torch.linspace(0, len(array) - 1, _ROWS).long()]
        found["rows"] = _ROWS
    content = array.detach().cpu().contiguous().view(torch.uint8).numpy()
    return {**found, "sha256": hashlib.sha256(content.data).hexdigest()}


def _file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
    except PermissionError as error:
        raise PermissionError(f"{path} may not be read by this user: permission denied.") from error
    return {"size": path.stat().st_size, "sha256": digest.hexdigest()}


def versions() -> dict[str, str]:
    """Of what makes the numbers of a run."""
    return {
        "pyrovae": pyrovae.__version__,
        "torch": str(torch.__version__),
        "pyro": pyro.__version__,
        "python": platform.python_version(),
    }
