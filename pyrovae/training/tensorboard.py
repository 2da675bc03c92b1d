"""The rows of a training run as scalars of TensorBoard."""

import importlib.util
import math
from os import PathLike
from pathlib import Path
from typing import Any

from pyrovae.training.history import COLUMNS

__all__ = ["TensorBoard"]


class TensorBoard:
    """A callback of :func:`pyrovae.fit` that writes each epoch's row for TensorBoard.

    A run that goes on in the same folder hides what was written after the step that it goes on
    from. Look at it with ``tensorboard --logdir FOLDER``.

    Args:
        folder: Where to write; made with the first row.

    Raises:
        ImportError: If TensorBoard is not installed (``pip install 'pyrovae[tensorboard]'``).

    Example:
        >>> import pyrovae as pv
        >>> watch = pv.training.TensorBoard("runs/board")  # fit(..., callback=watch)
    """

    def __init__(self, folder: str | PathLike):
        if importlib.util.find_spec("tensorboard") is None:
            raise ImportError(
                "TensorBoard is not installed. Run pip install 'pyrovae[tensorboard]'.",
                name="tensorboard",
            )
        self.folder = Path(folder)
        self._writer: Any = None

    def __call__(self, row: dict[str, float]) -> None:
        """Write the columns of a row, at its step."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=int(row["step"]))
        for name in COLUMNS:
            if name != "step" and math.isfinite(row[name]):
                self._writer.add_scalar(name, row[name], int(row["step"]))
        self._writer.flush()
