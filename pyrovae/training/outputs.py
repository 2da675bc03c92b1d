"""Where a training run is reported to, and kept, while it goes on."""

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from pyrovae import files
from pyrovae.declare import is_count

__all__ = ["Outputs"]

_SHARE = 0.01
"""The part of the time that checkpoints after epochs may take."""


class Outputs:
    """Progress bar, file of JSON lines, checkpoint, and a function to call after each epoch.

    Args:
        progress: Whether to show a progress bar; None shows it on a terminal only.
        log, checkpoint: Files, if wanted.
        callback: Called with each epoch's row.
        checkpoint_every: After how many steps, or how much time, of an epoch to write the
            checkpoint within it.

    Raises:
        FileNotFoundError: If the folder of a file does not exist.
        PermissionError: If it cannot be written to.
        ValueError: If ``checkpoint_every`` is no positive number of steps, nor a positive time.
    """

    def __init__(
        self,
        progress: bool | None = None,
        log: Path | None = None,
        checkpoint: Path | None = None,
        callback: Callable[[dict[str, float]], Any] | None = None,
        checkpoint_every: int | timedelta = timedelta(minutes=10),
    ):
        self.progress, self.log, self.checkpoint = progress, log, checkpoint
        self.callback, self.every = callback, checkpoint_every
        for name, path in (("log", log), ("checkpoint", checkpoint)):
            if path is not None and not path.absolute().parent.is_dir():
                raise FileNotFoundError(
                    f"There is no folder {path.absolute().parent} to write the {name} to. Make it."
                )
            if path is not None and not os.access(path.absolute().parent, os.W_OK):
                raise PermissionError(f"The folder of the {name}, {path}, cannot be written to.")
        if isinstance(checkpoint_every, timedelta):
            fits = checkpoint_every > timedelta(0)
        else:
            fits = is_count(checkpoint_every)
        if not fits:
            raise ValueError(
                "checkpoint_every must be a positive number of steps or a positive timedelta, "
                f"found {checkpoint_every!r}."
            )
        self.saved(0.0)

    def saved(self, seconds: float) -> None:
        """Begin to count steps and time anew, after a checkpoint that took so long to write."""
        self._steps, self._since, self._seconds = 0, time.monotonic(), seconds

    def affordable(self) -> bool:
        """Whether the checkpoint is to be written after this epoch: not so soon after the last one
        that writing takes a notable part of the time.
        """
        return _SHARE * (time.monotonic() - self._since) >= self._seconds

    def due(self) -> bool:
        """Whether the checkpoint is to be written after this step of an epoch."""
        self._steps += 1
        if self.checkpoint is None:
            return False
        if isinstance(self.every, timedelta):
            return time.monotonic() - self._since >= self.every.total_seconds()
        return self._steps >= self.every

    def append(self, row: dict[str, float]) -> None:
        """Add a row to the log, if there is one."""
        if self.log is not None:
            with self.log.open("a") as lines:
                lines.write(_line(row))

    def rewrite(self, rows: Sequence[dict[str, float]]) -> None:
        """Make these rows the whole log, if there is one."""
        if self.log is not None:
            files.write(self.log, "".join(map(_line, rows)))


def _line(row: dict[str, float]) -> str:
    """A row as strict JSON, which has no NaN."""
    return json.dumps({k: v if math.isfinite(v) else None for k, v in row.items()}) + "\n"
