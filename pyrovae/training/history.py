"""What training leaves behind: a row an epoch, or the place where it broke down."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from pyrovae import plots
from pyrovae.declare import html_table

__all__ = ["History", "NonFiniteLoss"]

COLUMNS = (
    "epoch",
    "step",
    "train_bound",
    "valid_bound",
    "reconstruction",
    "kl",
    "beta",
    "lr",
    "seconds",
    "skipped",
)

_FORMATS = {
    **dict.fromkeys(("epoch", "step", "skipped"), ".0f"),
    **dict.fromkeys(("train_bound", "valid_bound", "reconstruction", "kl", "seconds"), ".3f"),
}


class History:
    """One row an epoch; ``history["train_bound"]`` is a column, as an array.

    Columns: ``epoch`` and ``step`` (counted from 1, at the epoch's end); ``train_bound`` (mean of
    the estimator's bound over the epoch's batches, at beta = 1); ``valid_bound`` (mean over the
    validation data after the epoch, at beta = 1 and in eval mode; NaN without any);
    ``reconstruction`` and ``kl`` (training means; bound = reconstruction - kl for the ELBO);
    ``beta`` and ``lr`` (of the epoch's last step); ``seconds`` (training time of that epoch);
    ``skipped`` (steps that changed nothing, under ``nonfinite="skip"``). Bounds are in nats per
    datum.

    Attributes:
        best_epoch: The epoch whose weights were kept; the last one without validation data.
        stopped_early: Whether patience ran out.

    Example:
        See :func:`pyrovae.fit`, which returns it.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.best_epoch: int | None = None
        self.stopped_early = False

    def __getitem__(self, column: str) -> np.ndarray:
        if column not in COLUMNS:
            raise KeyError(f"History has no column {column!r}; it has {', '.join(COLUMNS)}.")
        return np.array([row[column] for row in self.rows])

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, float]]:
        return iter(self.rows)

    def keys(self) -> tuple[str, ...]:
        """Names of the columns."""
        return COLUMNS

    def plot(self, axes: Any = None) -> Any:
        """Bounds, reconstruction and KL over the epochs: :func:`pyrovae.plots.learning_curve`."""
        return plots.learning_curve(self, axes)

    def _repr_html_(self) -> str:
        """The first and the last epochs, as a notebook shows them."""
        best = "" if self.best_epoch is None else f", best validation in epoch {self.best_epoch}"
        return html_table(f"{len(self.rows)} epochs{best}", self._cells(), COLUMNS)

    def _cells(self) -> list[list[str]]:
        """The first and the last epochs, with an ellipsis for those between."""
        rows = [[format(row[name], _FORMATS.get(name, ".5g")) for name in COLUMNS] for row in self]
        return rows if len(rows) <= 8 else [*rows[:3], ["..."], *rows[-4:]]

    def __repr__(self) -> str:
        lines = ["".join(f"{cell:>15}" for cell in cells) for cells in (COLUMNS, *self._cells())]
        if self.best_epoch is not None:
            lines.append(
                f"weights of epoch {self.best_epoch} kept"
                + (", stopped early" * self.stopped_early)
            )
        return "\n".join(lines)


class NonFiniteLoss(ArithmeticError):
    """Training met a loss or a weight that is not finite; the last good weights are back in place.

    Attributes:
        step, epoch: Where, counted from 1.
        term: ``"reconstruction"``, ``"kl"``, ``"bound"`` or ``"weights"``; ``"parameters"`` if a
            distribution of the programs refused its parameters; ``"valid_bound"`` in validation.
        history: The epochs completed before.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian()
        >>> try:
        ...     pv.fit(oracle.model, oracle.guide, oracle.sample(8), lr=1e300)
        ... except pv.NonFiniteLoss as error:
        ...     print(error.step, len(error.history), oracle.bias.isfinite().all().item())
        2 1 True
    """

    def __init__(self, message: str, *, step: int, epoch: int, term: str, history: History):
        super().__init__(message)
        self.step, self.epoch, self.term, self.history = step, epoch, term, history
