"""Ready callbacks of :func:`pyrovae.fit`, which show each epoch's row in a tracker."""

import importlib.util
import math
from os import PathLike
from pathlib import Path
from typing import Any

from pyrovae.training.history import COLUMNS

__all__ = ["MLflow", "TensorBoard", "Wandb"]


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
        _check_installed("tensorboard", "TensorBoard")
        self.folder = Path(folder)
        self._writer: Any = None

    def __call__(self, row: dict[str, float]) -> None:
        """Write the columns of a row, at its step."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=int(row["step"]))
        for name, value in _scalars(row).items():
            self._writer.add_scalar(name, value, int(row["step"]))
        self._writer.flush()


class MLflow:
    """A callback of :func:`pyrovae.fit` that writes each epoch's row as metrics of an MLflow run.

    The run is the one that is active where this object is made. It stays yours: MLflow's own
    functions say where it is kept, record its parameters, and end it.

    Raises:
        ImportError: If MLflow is not installed (``pip install 'pyrovae[mlflow]'``).
        ValueError: If no run is active.

    Example:
        >>> import mlflow  # doctest: +SKIP
        >>> with mlflow.start_run():  # doctest: +SKIP
        ...     vae.fit(train, callback=pv.training.MLflow())
    """

    def __init__(self) -> None:
        _check_installed("mlflow", "MLflow")
        import mlflow  # pyright: ignore[reportMissingImports]

        run = mlflow.active_run()
        if run is None:
            raise ValueError("There is no active MLflow run. Call mlflow.start_run() first.")
        self.run_id = run.info.run_id

    def __call__(self, row: dict[str, float]) -> None:
        """Write the columns of a row, at its step."""
        import mlflow  # pyright: ignore[reportMissingImports]

        mlflow.log_metrics(_scalars(row), step=int(row["step"]), run_id=self.run_id)


class Wandb:
    """A callback of :func:`pyrovae.fit` that logs each epoch's row to Weights & Biases.

    The run is the one that is open where this object is made. It stays yours: ``wandb.init`` gives
    it a project and a configuration, and ``run.finish()`` ends it.

    Raises:
        ImportError: If wandb is not installed (``pip install 'pyrovae[wandb]'``).
        ValueError: If no run is open.

    Example:
        >>> import wandb  # doctest: +SKIP
        >>> with wandb.init(project="digits", mode="offline"):  # doctest: +SKIP
        ...     vae.fit(train, callback=pv.training.Wandb())
    """

    def __init__(self) -> None:
        _check_installed("wandb", "Weights & Biases")
        import wandb  # pyright: ignore[reportMissingImports]

        if wandb.run is None:
            raise ValueError("There is no open run of Weights & Biases. Call wandb.init() first.")
        self.run = wandb.run

    def __call__(self, row: dict[str, float]) -> None:
        """Log the columns of a row, at its step."""
        self.run.log(_scalars(row), step=int(row["step"]))


def _check_installed(package: str, name: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ImportError(
            f"{name} is not installed. Run pip install 'pyrovae[{package}]'.", name=package
        )


def _scalars(row: dict[str, float]) -> dict[str, float]:
    """What a tracker can draw over steps: the columns that are finite."""
    return {name: row[name] for name in COLUMNS if name != "step" and math.isfinite(row[name])}
