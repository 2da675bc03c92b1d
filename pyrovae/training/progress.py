"""A progress bar that moves with every step."""

import os
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Any

from pyrovae.training.tally import Tally

__all__ = ["Progress"]

_EVERY = 0.5  # seconds between looks at the numbers, each of which waits for the device


class Progress:
    """Steps taken, their rate, the time that is left and that of an epoch, and the bound, KL and
    beta of late.

    Args:
        hidden: Whether to show nothing; None shows it on a terminal only.
        epochs: Epochs in all.
        steps: Steps of an epoch, if known.
        done: Steps taken before.
    """

    def __init__(self, hidden: bool | None, epochs: int, steps: int | None, done: int):
        from tqdm.auto import tqdm

        total = None if steps is None else epochs * steps
        look: dict[str, Any] = {"desc": "fit", "unit": "step", **_size()}
        self.bar = tqdm(total=total, initial=done, disable=hidden, **look)
        self.epochs, self.steps, self.valid = epochs, steps, "none"
        self._shown = 0.0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.close()

    def step(self, epoch: int, tally: Tally) -> None:
        """Move by a step of an epoch, counted from 0."""
        self.bar.update()
        if not self.bar.disable and time.monotonic() - self._shown > _EVERY:
            self._shown = time.monotonic()
            self._show(epoch, tally.latest())

    def row(self, row: dict[str, float], has_valid: bool) -> None:
        """Show the numbers of a finished epoch."""
        self.valid = f"{row['valid_bound']:.2f}" if has_valid else "none"
        self._show(int(row["epoch"]) - 1, row)

    def _show(self, epoch: int, seen: dict[str, float]) -> None:
        names = {"bound": "train_bound", "kl": "kl", "beta": "beta"}
        shown = {name: f"{seen[key]:.4g}" for name, key in names.items() if key in seen}
        place = f"{epoch + 1}/{self.epochs}{self._each()}"
        self.bar.set_postfix({"epoch": place, **shown, "valid": self.valid})

    def _each(self) -> str:
        """The time that an epoch takes, by the steps of late."""
        if self.bar.disable or self.steps is None:
            return ""
        seen = self.bar.format_dict  # it has no rate in the first moments
        rate = seen["rate"] or (seen["n"] - seen["initial"]) / max(seen["elapsed"], 1e-9)
        if rate == 0:
            return ""
        return f" ({self.bar.format_interval(self.steps / rate)} each)"


def _size() -> dict[str, Any]:
    """The size of the terminal; a usual one where it tells none, as in some containers: tqdm would
    show nothing there.
    """
    with suppress(AttributeError, OSError, ValueError):
        if 0 in os.get_terminal_size(sys.stderr.fileno()):
            return {"ncols": 120, "nrows": 20}
    return {"dynamic_ncols": True}
