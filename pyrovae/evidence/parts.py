"""Finished parts of an estimate, kept in a folder: to go on after a stop, and to share the work."""

import hashlib
import json
import math
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor
from tqdm.auto import tqdm

import pyrovae
from pyrovae import files
from pyrovae.evidence.inspection import Inspection
from pyrovae.evidence.methods.base import Estimate
from pyrovae.programs import modules_of
from pyrovae.training.distributed import Processes
from pyrovae.training.weights import content_hash

__all__ = ["Parts", "remove_parts"]

MOST = 256
"""Parts of one estimate, so many files at most."""
_SUFFIX = ".safetensors"
_NAME = re.compile(r"[0-9a-f]{16}-\d+-\d+-\d+\.safetensors")


class Parts:
    """The parts of one estimate in a folder.

    Each file has a name made of everything that its numbers depend on: weights, data, method,
    settings and seed. It is written whole to another name and renamed. So a part that is there is
    right, and is not evaluated again.

    Where ``torchrun`` has started several processes, each evaluates its share of the parts, and
    waits for the others.

    Args:
        folder: Where the files lie, for all processes alike.
        inspection: Programs and data.
        method: How the evidence is estimated.
    """

    def __init__(self, folder: str | os.PathLike, inspection: Inspection, method: Any):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.identity = _identity(inspection, method)
        self.progress = inspection.progress
        self.calls = 0
        self.processes = Processes.join(torch.device("cpu"))
        if self.processes is not None:
            number = torch.tensor(list(bytes.fromhex(self.identity)))
            what = "weights, data, method or seed"
            self.processes.check_same([number], what, "Give all of them the same.")

    def estimate(
        self, num_data: int, size: int, evaluate: Callable[[int, int], Estimate]
    ) -> list[Estimate]:
        """The estimates of all data, in their order.

        Args:
            num_data: How many there are.
            size: Data that are evaluated together; parts are made of whole pieces.
            evaluate: From the first datum of a part, and the one after its last.
        """
        self.calls += 1
        length = size * math.ceil(math.ceil(num_data / size) / MOST)
        ranges = [(i, min(i + length, num_data)) for i in range(0, num_data, length)]
        rank, every = (self.processes.rank, self.processes.size) if self.processes else (0, 1)
        mine = ranges[rank::every]
        for part in tqdm(mine, desc="parts", disable=not (self.progress and rank == 0)):
            if self._read(*part) is None:
                self._write(evaluate(*part), *part)
        found = [self._wait(*part) for part in ranges]
        if self.processes is not None:  # nobody removes files that another one has yet to read
            self.processes.sum(torch.zeros(()))
        return found

    def _path(self, start: int, stop: int) -> Path:
        return self.folder / f"{self.identity}-{self.calls}-{start}-{stop}{_SUFFIX}"

    def _wait(self, start: int, stop: int) -> Estimate:
        """A part, once it is there. A process that dies ends the others through ``torchrun``."""
        pause = 0.02
        while (found := self._read(start, stop)) is None:
            time.sleep(pause)
            pause = min(1.0, 1.5 * pause)
        return found

    def _read(self, start: int, stop: int) -> Estimate | None:
        """A finished part; None if it is missing or damaged."""
        path = self._path(start, stop)
        try:
            with safe_open(path, framework="np") as file:
                known = file.metadata() or {}
                columns = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, ValueError):
            return None
        whole = known.get("checksum") == _checksum(columns)
        if not whole or any(len(column) != stop - start for column in columns.values()):
            return None
        ordered = {name: columns[name] for name in json.loads(known["order"])}
        return Estimate(ordered, json.loads(known["notes"]))

    def _write(self, estimate: Estimate, start: int, stop: int) -> None:
        columns = {k: np.ascontiguousarray(v) for k, v in estimate.columns.items()}
        about = {
            "checksum": _checksum(columns),
            "notes": json.dumps(estimate.notes),
            "order": json.dumps(list(columns)),
        }
        files.write(self._path(start, stop), save(columns, metadata=about))


def remove_parts(folder: str | os.PathLike) -> None:
    """Remove all parts in a folder, and the folder if nothing else is in it."""
    folder = Path(folder)
    for path in folder.iterdir():
        if _NAME.match(path.name):
            path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _checksum(columns: dict[str, np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(columns):
        digest.update(f"{name} {columns[name].dtype} {columns[name].shape}".encode())
        digest.update(np.ascontiguousarray(columns[name]).tobytes())
    return digest.hexdigest()


def _identity(inspection: Inspection, method: Any) -> str:
    """A hash of everything that the numbers depend on."""
    known = {
        "method": repr(method),
        "settings": method.settings(),
        "seed": inspection.seed,
        "data": inspection.fingerprint,
        "memory": inspection.memory_budget,
        "nesting": inspection.max_plate_nesting,
        "device": inspection.device.type,
        "versions": [pyrovae.__version__, torch.__version__],
    }
    weights = _weights(inspection)
    known["names"] = [name for name, _ in weights]
    known["weights"] = content_hash((tensor for _, tensor in weights), 16).hex()
    text = json.dumps(known, sort_keys=True).encode()
    return hashlib.blake2b(text, digest_size=8).hexdigest()


def _weights(inspection: Inspection) -> list[tuple[str, Tensor]]:
    """Parameters and buffers of the modules behind the programs, and Pyro's own parameters."""
    found: dict[int, tuple[str, Tensor]] = {}
    for module in modules_of(inspection.model, inspection.guide):
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            found.setdefault(id(tensor), (name, tensor))
    store = dict(pyro.get_param_store().named_parameters())
    for name in sorted(store):
        if not isinstance(store[name], torch.nn.Parameter):  # those belong to some module
            found.setdefault(id(store[name]), (name, store[name]))
    return list(found.values())
