"""What the rows of a run's epochs are shown to while it trains."""

from collections.abc import Callable
from functools import partial
from typing import Any

from pyrovae.runs.run import Run
from pyrovae.runs.terminal import attempt, say
from pyrovae.training import TensorBoard

__all__ = ["Callback", "watcher"]

Callback = Callable[[dict[str, float]], Any]


def watcher(run: Run, callback: Callback | None, verbose: bool, tensorboard: bool) -> Callback:
    """What each epoch's row is given to. Showing it costs no run if that fails."""
    board = TensorBoard(run.path / "tensorboard") if tensorboard else None
    width = len(str(run.config.epochs))

    def watch(row: dict[str, float]) -> Any:
        nonlocal board
        if board is not None and not attempt("TensorBoard", partial(board, row)):
            board = None
        if verbose:
            names = {"train": "train_bound", "valid": "valid_bound", "kl": "kl", "beta": "beta"}
            seen = "  ".join(f"{name} {row[column]:.4g}" for name, column in names.items())
            skipped = f"  {row['skipped']:.0f} steps skipped" * bool(row["skipped"])
            say("epoch", f"{row['epoch']:{width}.0f}  {seen}  {row['seconds']:.1f} s{skipped}")
        return None if callback is None else callback(row)

    return watch
