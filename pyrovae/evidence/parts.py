"""Finished parts of an estimate, kept in a folder: to go on after a stop, and to share the work."""

import hashlib
import json
import math
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from tqdm.auto import tqdm

from pyrovae import files
from pyrovae.evidence.identity import identity
from pyrovae.evidence.inspection import Inspection
from pyrovae.evidence.methods.base import Estimate
from pyrovae.training.distributed import LostProcess, Processes

__all__ = ["Parts", "remove_parts"]

MOST = 256
"""Parts of one estimate, so many files at most."""
_SUFFIX = ".safetensors"
_FAILED = ".failed"
_OURS = re.compile(r"\.?[0-9a-f]{16}(-\d+)+(\.\d+\.part)?(\.safetensors|\.failed)")
"""Names of parts, of messages that a process has failed, and of both while they are written."""


class Parts:
    """The parts of one estimate in a folder.

    Each file has a name made of everything that its numbers depend on: programs, weights, data,
    method, settings and seed. It is written whole to another name and renamed. So a part that is
    there is right, and is not evaluated again.

    Where ``torchrun`` has started several processes, each evaluates its share of the parts, and
    waits for the others. One that fails leaves a message, which ends the waiting.

    Args:
        folder: Where the files lie, for all processes alike.
        inspection: Programs and data.
        method: How the evidence is estimated.
    """

    def __init__(self, folder: str | os.PathLike, inspection: Inspection, method: Any):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.identity = identity(inspection, method)
        self.progress = inspection.progress
        self.calls = 0
        self.processes = Processes.join(torch.device("cpu"))
        if self.processes is not None:
            number = torch.tensor(list(bytes.fromhex(self.identity)))
            what = "programs, weights, data, method or seed"
            self.processes.check_same([number], what, "Give all of them the same.")
            if self.processes.first:  # nobody waits for parts of an earlier attempt any more
                for path in self.folder.glob(f"{self.identity}-*{_FAILED}"):
                    path.unlink(missing_ok=True)
            self._meet()

    def estimate(
        self, num_data: int, size: int, evaluate: Callable[[int, int], Estimate]
    ) -> list[Estimate]:
        """The estimates of all data, in their order.

        Args:
            num_data: How many there are.
            size: Data that are evaluated together; parts are made of whole pieces.
            evaluate: From the first datum of a part, and the one after its last.

        Raises:
            LostProcess: If another process could not evaluate its share.
        """
        self.calls += 1
        length = size * math.ceil(math.ceil(num_data / size) / MOST)
        ranges = [(i, min(i + length, num_data)) for i in range(0, num_data, length)]
        rank, every = (self.processes.rank, self.processes.size) if self.processes else (0, 1)
        mine = ranges[rank::every]
        found = {}
        try:
            for part in tqdm(mine, desc="parts", disable=not (self.progress and rank == 0)):
                found[part] = self._read(*part) or self._write(evaluate(*part), *part)
        except BaseException as error:
            self._tell(error)
            raise
        estimates = [found.get(part) or self._wait(*part) for part in ranges]
        self._meet()  # nobody removes files that another one has yet to read
        return estimates

    def _meet(self) -> None:
        """Wait until all processes are here."""
        if self.processes is not None:
            self.processes.sum(torch.zeros(()))

    def _tell(self, error: BaseException) -> None:
        """Let the processes that wait for this one know that it has failed."""
        if self.processes is not None:
            path = self.folder / f"{self.identity}-{self.processes.rank}{_FAILED}"
            with suppress(OSError):
                files.write(path, f"{type(error).__name__}: {error}")

    def _path(self, start: int, stop: int) -> Path:
        return self.folder / f"{self.identity}-{self.calls}-{start}-{stop}{_SUFFIX}"

    def _wait(self, start: int, stop: int) -> Estimate:
        """A part, once it is there. A process that dies ends the others through ``torchrun``."""
        pause = 0.02
        while (found := self._read(start, stop)) is None:
            for path in self.folder.glob(f"{self.identity}-*{_FAILED}"):
                rank = path.stem.rpartition("-")[2]
                raise LostProcess(
                    f"Process {rank} could not evaluate its share of the data: {path.read_text()} "
                    f"The parts that are finished stay in {self.folder}, for another call."
                )
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

    def _write(self, estimate: Estimate, start: int, stop: int) -> Estimate:
        """Write a part, and give it as a reader of the file has it."""
        columns = {k: np.ascontiguousarray(v) for k, v in estimate.columns.items()}
        about = {
            "checksum": _checksum(columns),
            "notes": json.dumps(estimate.notes),
            "order": json.dumps(list(columns)),
        }
        files.write(self._path(start, stop), save(columns, metadata=about))
        return Estimate(columns, json.loads(about["notes"]))


def remove_parts(folder: str | os.PathLike) -> None:
    """Remove all parts in a folder, what processes that were killed have left there, and the folder
    if nothing else is in it.
    """
    folder = Path(folder)
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        if _OURS.fullmatch(path.name):
            path.unlink(missing_ok=True)
    with suppress(OSError):  # other things are in it, or it is gone
        folder.rmdir()


def _checksum(columns: dict[str, np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(columns):
        digest.update(f"{name} {columns[name].dtype} {columns[name].shape}".encode())
        digest.update(np.ascontiguousarray(columns[name]).tobytes())
    return digest.hexdigest()
