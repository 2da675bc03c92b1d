"""A training run as it stands: what a checkpoint holds, and what a failure looks at."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pyrovae.data.batches import Batches
from pyrovae.estimators import Estimator
from pyrovae.programs import Program
from pyrovae.schedules import Schedule
from pyrovae.svi import Step
from pyrovae.training import checkpoint as files
from pyrovae.training.history import History
from pyrovae.training.tally import Tally
from pyrovae.training.weights import Weights

__all__ = ["State"]


class State:
    """All that a training run changes, from one step to the next.

    Args:
        programs: Model and guide.
        modules: Those that the programs call.
        step: Takes the training steps.
        train: The data.
        beta: A schedule over steps.

    Attributes:
        count: Steps taken.
        waited: Epochs since the best one.
        tally: Of the epoch at hand.
        recent: Batches since the last look at the losses.
        layout: Shape, strides and dtype of the first batch of the run.
        best, good: The weights of the best epoch, and of the last look at the losses.
    """

    def __init__(
        self,
        programs: tuple[Program, Program],
        modules: Sequence[nn.Module],
        step: Step,
        train: Batches,
        beta: Schedule,
    ):
        self.programs, self.modules, self.step = programs, modules, step
        self.train, self.beta = train, beta
        self.estimator = step.objective.estimator
        self.ours = isinstance(self.estimator, Estimator)
        self.history = History()
        self.count = self.waited = 0
        self.best_bound = -math.inf
        self.tally: Tally | None = None
        self.recent: list[Any] = []
        self.layout: list[Any] | None = None
        self.weights = Weights(modules, step.parameters)
        self.best = self.good = self.weights.copy()

    def save(self, path: Path) -> None:
        """Write all that a run needs to go on from where it is, within an epoch too."""
        files.save(self._values(), path)

    def _values(self) -> dict[str, Any]:
        optimizer: Any = self.step.optimizer
        return {
            "weights": self.weights.copy(),
            "best": self.best,
            "optimizer_class": type(optimizer).__name__,
            "optimizer": optimizer.state_dict(),
            "rows": self.history.rows,
            "best_epoch": self.history.best_epoch,
            "stopped_early": self.history.stopped_early,
            "count": self.count,
            "waited": self.waited,
            "best_bound": self.best_bound,
            "beta": self.beta.state_dict(),
            "random": files.random_states(self.train.device, self.train.source),
            "epoch": None if self.tally is None else self.tally.state_dict(),
            "layout": self.layout,
            "scaled": self.step.scaled,
        }

    def restore(self, path: Path) -> None:
        """Put a run back to where it was saved.

        Raises:
            ValueError: If the file is no checkpoint, or that of another model, optimiser or
                schedule.
        """
        state, warning = files.load(path)
        if warning:
            warnings.warn(warning, stacklevel=2)
        optimizer: Any = self.step.optimizer
        kind = type(optimizer).__name__
        if not isinstance(state, dict) or set(state) != set(self._values()):
            raise ValueError(f"{path} is whole, but no checkpoint that fit wrote. Remove it.")
        if state["optimizer_class"] != kind:
            raise ValueError(
                f"{path} was written with {state['optimizer_class']}, and the optimiser is {kind}. "
                "Give the same optimiser, or another checkpoint."
            )
        if not set(self.beta.state_dict()) <= set(state["beta"]):
            raise ValueError(
                f"{path} was written with another schedule of beta than {self.beta!r}. Give the "
                "same schedule, or another checkpoint."
            )
        tensors = self.weights.tensors
        if [w.shape for w in state["weights"]] != [t.shape for t in tensors]:
            raise ValueError(
                f"{path} holds the weights of another model. Remove it, or give another checkpoint."
            )
        self.weights.restore(state["weights"])
        self.best = [b.to(t.device) for b, t in zip(state["best"], tensors, strict=True)]
        self.good = self.weights.copy()
        optimizer.load_state_dict(state["optimizer"])
        self.history.rows = state["rows"]
        self.history.best_epoch = state["best_epoch"]
        self.history.stopped_early = state["stopped_early"]
        self.count, self.waited = state["count"], state["waited"]
        self.best_bound = state["best_bound"]
        self.beta.load_state_dict(state["beta"])
        device, epoch = self.train.device, state["epoch"]
        self.tally = None if epoch is None else Tally.load(epoch, device)
        self.step.scaled, self.layout = state["scaled"], state["layout"]
        self.step.resume(self.count)
        if self.layout is not None:
            # The first layout that a step meets is the one that may be compiled: that of before.
            # Several processes run the programs on it, so it holds zeros, such as numbers of rows.
            self.step.prepare(
                *(torch.empty_strided(shape, stride, dtype=dtype, device=device).zero_()
                  for shape, stride, dtype in self.layout)
            )  # fmt: skip
        files.restore_random_states(state["random"], device, self.train.source)
