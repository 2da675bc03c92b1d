"""A training run as a checkpoint, and back."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pyrovae.training import checkpoint as files
from pyrovae.training.tally import Tally

if TYPE_CHECKING:
    from pyrovae.training.loop import Trainer

__all__ = ["restore", "save"]


def save(trainer: "Trainer", path: Path) -> None:
    """Write all that a run needs to go on from where it is, within an epoch too."""
    files.save(_state(trainer), path)


def _state(trainer: "Trainer") -> dict[str, Any]:
    optimizer: Any = trainer.step.optimizer
    return {
        "weights": trainer.weights.copy(),
        "best": trainer.best,
        "optimizer_class": type(optimizer).__name__,
        "optimizer": optimizer.state_dict(),
        "rows": trainer.history.rows,
        "best_epoch": trainer.history.best_epoch,
        "stopped_early": trainer.history.stopped_early,
        "count": trainer.count,
        "waited": trainer.waited,
        "best_bound": trainer.best_bound,
        "beta": trainer.beta.state_dict(),
        "random": files.random_states(trainer.train.device, trainer.train.source),
        "epoch": None if trainer.tally is None else trainer.tally.state_dict(),
        "layout": trainer.layout,
        "scaled": trainer.step.scaled,
    }


def restore(trainer: "Trainer", path: Path) -> None:
    """Put a run back to where it was saved.

    Raises:
        ValueError: If the file is no checkpoint, or that of another model or optimiser.
    """
    state, warning = files.load(path)
    if warning:
        warnings.warn(warning, stacklevel=2)
    optimizer: Any = trainer.step.optimizer
    kind = type(optimizer).__name__
    if not isinstance(state, dict) or set(state) != set(_state(trainer)):
        raise ValueError(f"{path} is whole, but no checkpoint that fit wrote. Remove it.")
    if state["optimizer_class"] != kind:
        raise ValueError(
            f"{path} was written with {state['optimizer_class']}, and the optimiser is {kind}. "
            "Give the same optimiser, or another checkpoint."
        )
    tensors = trainer.weights.tensors
    if not files.tensors_match(state["weights"], tensors):
        raise ValueError(
            f"{path} holds the weights of another model. Remove it, or give another checkpoint."
        )
    trainer.weights.restore(state["weights"])
    trainer.best = [b.to(t.device) for b, t in zip(state["best"], tensors, strict=True)]
    trainer.good = trainer.weights.copy()
    optimizer.load_state_dict(state["optimizer"])
    trainer.history.rows = state["rows"]
    trainer.history.best_epoch = state["best_epoch"]
    trainer.history.stopped_early = state["stopped_early"]
    trainer.count, trainer.waited = state["count"], state["waited"]
    trainer.best_bound = state["best_bound"]
    trainer.beta.load_state_dict(state["beta"])
    device, epoch = trainer.train.device, state["epoch"]
    trainer.tally = None if epoch is None else Tally.load(epoch, device)
    trainer.step.scaled, trainer.layout = state["scaled"], state["layout"]
    trainer.step.resume(trainer.count)
    trainer.judged.resume(len(trainer.history) * getattr(trainer.valid, "num_batches", 0))
    if trainer.layout is not None:
        # The first layout that a step meets is the one that may be compiled: the same as before.
        # Several processes run the programs on it, so it holds zeros, such as numbers of rows.
        trainer.step.prepare(
            *(torch.empty_strided(shape, stride, dtype=dtype, device=device).zero_()
              for shape, stride, dtype in trainer.layout)
        )  # fmt: skip
    files.restore_random_states(state["random"], device, trainer.train.source)
