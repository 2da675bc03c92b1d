"""The epochs of a training run: steps, validation, early stopping, checkpoints."""

import itertools
import math
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pyrovae.compilation import compile as compiled
from pyrovae.data.batches import Batches
from pyrovae.estimators import Estimator
from pyrovae.objective import Report, objective
from pyrovae.particles import InvalidParameters
from pyrovae.programs import Program, evaluation_mode, modules_of
from pyrovae.schedules import Schedule
from pyrovae.svi import Step
from pyrovae.training import checkpoint as files
from pyrovae.training.history import History, NonFiniteLoss
from pyrovae.training.outputs import Outputs
from pyrovae.training.weights import Weights

__all__ = ["Trainer"]

CHECK_EVERY = 50  # steps between looks at the losses, each of which waits for the device


class Trainer:
    """The state of a training run, from one epoch to the next.

    Args:
        programs: Model and guide.
        step: Takes the training steps.
        train, valid: The data; validation data may be missing.
        beta, lr: Schedules over steps; without ``lr`` the optimiser keeps its own.
        seed: Of validation's draws.
        capture, compile, epochs: How the bound of validation batches runs, and how often.
    """

    def __init__(
        self,
        programs: tuple[Program, Program],
        step: Step,
        train: Batches,
        valid: Batches | None,
        *,
        beta: Schedule,
        lr: Schedule | None,
        seed: int,
        capture: bool,
        compile: bool | Literal["auto"],
        epochs: int,
    ):
        self.programs, self.step = programs, step
        self.train, self.valid = train, valid
        self.beta, self.lr, self.seed = beta, lr, seed
        self.estimator = step.objective.estimator
        self.ours = isinstance(self.estimator, Estimator)
        self.history = History()
        self.count = 0  # steps taken
        self.waited = 0  # epochs since the best one
        self.best_bound = -math.inf
        self.weights = Weights(programs, step.parameters)
        self.best = self.good = self.weights.copy()
        judged = objective(*programs, self.estimator)
        self._judge_batch = compiled(
            judged.report,
            settings=judged.settings,
            enabled=capture and self.ours,
            quiet=True,  # the training step has said what there is to say
            backend=compile,
            calls=0 if valid is None else epochs * valid.num_batches,
        )

    def run(self, epochs: int, patience: int | None, outputs: Outputs, *, resume: bool) -> History:
        """Train up to ``epochs`` epochs, counted from the beginning of the run."""
        from tqdm.auto import tqdm

        checkpoint, callback = outputs.checkpoint, outputs.callback
        if resume and checkpoint is not None and files.exists(checkpoint):
            self._load(checkpoint)
            # The log and the checkpoint may have ended at different epochs.
            outputs.rewrite(self.history.rows)
        first = len(self.history)
        hidden = None if outputs.progress is None else not outputs.progress
        looks: dict[str, Any] = {"desc": "fit", "unit": "epoch", "dynamic_ncols": True}
        with tqdm(total=epochs, initial=first, disable=hidden, **looks) as bar:
            for epoch in range(first, epochs):
                if self.history.stopped_early:
                    break
                row = self._epoch(epoch)
                self._judge(row, patience)
                if callback is not None and callback(row):
                    self.history.stopped_early = True
                if checkpoint is not None:
                    self._save(checkpoint)
                outputs.append(row)
                bar.update()
                names = {"train": "train_bound", "kl": "kl", "valid": "valid_bound"}
                shown = {name: f"{row[key]:.2f}" for name, key in names.items()}
                bar.set_postfix(shown if self.valid is not None else {**shown, "valid": "none"})
        if self.valid is not None:
            self.weights.restore(self.best)
        else:
            self.history.best_epoch = len(self.history) or None
        return self.history

    def _epoch(self, epoch: int) -> dict[str, float]:
        for module in modules_of(*self.programs):
            module.train()
        start = time.perf_counter()
        reports: list[Report] = []
        betas: list[float] = []
        sizes: list[int] = []
        batches = iter(self.train.indices() if self.train.by_index else self.train)
        checked = -1
        while checked < len(sizes):
            checked = len(sizes)
            with self.step.guarded():
                for batch in itertools.islice(batches, CHECK_EVERY):
                    betas.append(self._set_schedules())
                    report = self._take(batch, betas[-1])
                    reports.append(report)
                    sizes.append(batch[0].shape[0])
                    if self.beta.feedback:
                        seen = report.reconstruction.item(), report.kl.item()
                        self.beta.update(*(value / sizes[-1] for value in seen))
                    self.count += 1
            self._check_finite(reports[checked:])
        seconds = time.perf_counter() - start
        bounds, reconstructions, kls = (
            torch.stack(column).double().cpu() for column in zip(*reports, strict=True)
        )
        extra = torch.tensor(betas, dtype=torch.float64) - 1.0
        at_one = bounds + torch.where(extra == 0, 0.0, extra * kls)
        total = sum(sizes)
        row = {
            "epoch": epoch + 1,
            "step": self.count,
            "train_bound": (at_one.sum() / total).item(),
            "valid_bound": self._validate(epoch),
            "reconstruction": (reconstructions.sum() / total).item(),
            "kl": (kls.sum() / total).item(),
            "beta": betas[-1],
            "lr": float(self.step.optimizer.param_groups[0]["lr"]),  # type: ignore[union-attr]
            "seconds": seconds,
        }
        self.history.rows.append(row)
        return row

    def _take(self, batch: tuple[Tensor, ...], beta: float) -> Report:
        try:
            return self.step(*batch, beta=beta)
        except InvalidParameters as error:
            raise self._stopped(self.count + 1, "parameters", f"{error} ") from error
        except ValueError as error:
            if len(batch[0]) == 1 and "more than 1 value per channel" in str(error):
                raise ValueError(
                    "A batch holds a single datum, and batch normalisation needs two or more. Give "
                    "drop_last=True, or another batch_size."
                ) from error
            raise

    def _set_schedules(self) -> float:
        """Set the learning rate and the estimator's own schedule for the next step; returns its
        beta.
        """
        if self.lr is not None:
            for group in self.step.optimizer.param_groups:  # type: ignore[union-attr]
                group["lr"] = self.lr(self.count)
        if self.ours:
            self.estimator.advance(self.count)
        return self.beta(self.count)

    def _validate(self, epoch: int) -> float:
        """Mean bound over the validation data at beta = 1; every epoch sees the same draws."""
        if self.valid is None:
            return math.nan
        total, count = 0.0, 0
        devices = [self.valid.device] if self.valid.device.type == "cuda" else []
        apart = torch.random.fork_rng(devices=devices)
        with evaluation_mode(*self.programs), apart, self._judge_batch.guarded():
            torch.manual_seed(self.seed)
            for batch in self.valid:
                report, _ = self._judge_batch(None, *batch)
                bound = report.bound.item()
                if not math.isfinite(bound):
                    self._fail_validation(bound, epoch, count, count + len(batch[0]))
                total += bound
                count += len(batch[0])
        return total / count

    def _fail_validation(self, bound: float, epoch: int, first: int, last: int) -> None:
        self.weights.restore(self.best if self.history.best_epoch else self.good)
        kept = self.history.best_epoch or "the last step"
        raise NonFiniteLoss(
            f"Training stopped after epoch {epoch + 1}: the bound of the validation data {first} "
            f"to {last - 1} is {bound}. Look for outliers among them, or lower lr. The weights "
            f"of {f'epoch {kept}' if self.history.best_epoch else kept} are back in place.",
            step=self.count,
            epoch=epoch + 1,
            term="valid_bound",
            history=self.history,
        )

    def _judge(self, row: dict[str, float], patience: int | None) -> None:
        if self.valid is None:
            return
        if row["valid_bound"] > self.best_bound:
            self.best_bound, self.waited = row["valid_bound"], 0
            self.history.best_epoch = int(row["epoch"])
            self.best = self.weights.copy()
        elif self.count > self.beta.warmup_steps:
            self.waited += 1
        if patience is not None and self.waited >= patience:
            self.history.stopped_early = True

    def _check_finite(self, reports: Sequence[Report]) -> None:
        if not reports:
            return
        values = torch.stack([torch.stack(tuple(report)) for report in reports])
        if not self.ours:
            values = values[:, :1]  # an ELBO of Pyro's own reports its loss alone
        bad = ~torch.isfinite(values).all(1)
        if not bad.any() and all(torch.isfinite(p).all() for p in self.step.parameters):
            self.good = self.weights.copy()
            return
        index, term, value = len(reports) - 1, "weights", math.nan
        if bad.any():
            index = int(bad.nonzero()[0])
            seen = dict(zip(Report._fields, values[index].tolist(), strict=False))
            order = ("reconstruction", "kl", "bound")
            term = next(name for name in order if not math.isfinite(seen.get(name, 0.0)))
            value = seen[term]
        step = self.count - len(reports) + index + 1
        raise self._stopped(step, term, f"the {term} became {value}. ")

    def _stopped(self, step: int, term: str, why: str) -> NonFiniteLoss:
        """The error that ends training, with the last good weights in place."""
        self.weights.restore(self.good)
        epoch = len(self.history) + 1
        return NonFiniteLoss(
            f"Training stopped at step {step} (epoch {epoch}): {why}The last good weights are back "
            "in place. Lower lr, clip gradients (clip_norm=...), or give the likelihood a larger "
            "minimum scale.",
            step=step,
            epoch=epoch,
            term=term,
            history=self.history,
        )

    def _save(self, path: Path) -> None:
        state = {
            "weights": self.weights.copy(),
            "best": self.best,
            "optimizer_class": type(self.step.optimizer).__name__,
            "optimizer": self.step.optimizer.state_dict(),  # type: ignore[union-attr]
            "rows": self.history.rows,
            "best_epoch": self.history.best_epoch,
            "stopped_early": self.history.stopped_early,
            "count": self.count,
            "waited": self.waited,
            "best_bound": self.best_bound,
            "beta": self.beta.state_dict(),
            "random": files.random_states(self.train.device, self.train.source),
        }
        files.save(state, path)

    def _load(self, path: Path) -> None:
        state, warning = files.load(path)
        if warning:
            warnings.warn(warning, stacklevel=2)
        kind = type(self.step.optimizer).__name__
        if state["optimizer_class"] != kind:
            raise ValueError(
                f"{path} was written with {state['optimizer_class']}, and the optimiser is {kind}. "
                "Give the same optimiser, or another checkpoint."
            )
        if not files.tensors_match(state["weights"], self.weights.tensors):
            raise ValueError(
                f"{path} holds the weights of another model. Remove it, or give another checkpoint."
            )
        self.weights.restore(state["weights"])
        pairs = zip(state["best"], self.weights.tensors, strict=True)
        self.best = [value.to(tensor.device) for value, tensor in pairs]
        self.good = self.weights.copy()
        self.step.optimizer.load_state_dict(state["optimizer"])  # type: ignore[union-attr]
        self.history.rows = state["rows"]
        self.history.best_epoch = state["best_epoch"]
        self.history.stopped_early = state["stopped_early"]
        self.count, self.waited = state["count"], state["waited"]
        self.step.resume(self.count)
        self._judge_batch.resume(len(self.history) * getattr(self.valid, "num_batches", 0))
        self.best_bound = state["best_bound"]
        self.beta.load_state_dict(state["beta"])
        files.restore_random_states(state["random"], self.train.device, self.train.source)
