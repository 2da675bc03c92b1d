"""Where a training run is reported to while it goes on."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Outputs"]


class Outputs(NamedTuple):
    """Progress bar, file of JSON lines, checkpoint, and a function to call after each epoch."""

    progress: bool | None = None
    log: Path | None = None
    checkpoint: Path | None = None
    callback: Callable[[dict[str, float]], Any] | None = None

    def append(self, row: dict[str, float]) -> None:
        """Add a row to the log, if there is one."""
        if self.log is not None:
            with self.log.open("a") as lines:
                lines.write(_line(row))

    def rewrite(self, rows: Sequence[dict[str, float]]) -> None:
        """Make these rows the whole log, if there is one."""
        if self.log is not None:
            self.log.write_text("".join(map(_line, rows)))


def _line(row: dict[str, float]) -> str:
    """A row as strict JSON, which has no NaN."""
    return json.dumps({k: v if math.isfinite(v) else None for k, v in row.items()}) + "\n"
