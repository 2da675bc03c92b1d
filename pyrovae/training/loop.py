"""The epochs of a training run: steps, validation, early stopping, checkpoints."""

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor, nn

from pyrovae.compilation import compile as compiled
from pyrovae.compilation import one_thread
from pyrovae.data.batches import Batches
from pyrovae.objective import Report, objective
from pyrovae.particles import InvalidParameters
from pyrovae.programs import Program, evaluation_mode
from pyrovae.schedules import Schedule
from pyrovae.signals import Stop, deferred
from pyrovae.svi import Step
from pyrovae.training import checkpoint as files
from pyrovae.training import failures
from pyrovae.training.history import COLUMNS, History
from pyrovae.training.outputs import Outputs
from pyrovae.training.progress import Progress
from pyrovae.training.shares import Share
from pyrovae.training.state import State
from pyrovae.training.tally import Tally

__all__ = ["Trainer"]

CHECK_EVERY = 50  # steps between looks at the losses, each of which waits for the device


class Trainer(State):
    """A training run, and its way from one epoch to the next.

    Args:
        programs, modules, step, train, beta: As :class:`State` has them.
        valid: Validation data, which may be missing.
        lr: A schedule over steps; without it the optimiser keeps its own.
        seed: Of validation's draws.
        capture, compile, epochs: How the bound of validation batches runs, and how often.
    """

    def __init__(
        self,
        programs: tuple[Program, Program],
        modules: Sequence[nn.Module],
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
        super().__init__(programs, modules, step, train, beta)
        self.processes = step.processes
        self.valid, self.lr, self.seed = valid, lr, seed
        judged = objective(*programs, self.estimator)
        self.judged = compiled(
            judged.report if step.processes is None else Share(judged, gradients=False),
            settings=judged.settings,
            enabled=capture and self.ours,
            quiet=True,  # the training step has said what there is to say
            backend=compile,
            calls=0 if valid is None else epochs * valid.num_batches,
        )
        judge: Any = self.judged
        self._judge_batch = judge if step.processes is None else step.processes.judging(judge)

    def run(self, epochs: int, patience: int | None, outputs: Outputs, *, resume: bool) -> History:
        """Train up to ``epochs`` epochs, counted from the beginning of the run."""
        self.outputs = outputs
        checkpoint = outputs.checkpoint
        if resume and checkpoint is not None and files.exists(checkpoint):
            self.restore(checkpoint)
            self.judged.resume(len(self.history) * getattr(self.valid, "num_batches", 0))
            # The log and the checkpoint may have ended at different epochs.
            outputs.rewrite(self.history.rows)
        hidden = None if outputs.progress is None else not outputs.progress
        looks = hidden, epochs, self.train.num_batches, self.count
        # Without a checkpoint there is nothing to put off a signal for.
        with Progress(*looks) as self.bar, deferred() if checkpoint else nullcontext() as stop:
            self.stop = stop or Stop()
            for epoch in range(len(self.history), epochs):
                if self.history.stopped_early:
                    break
                with one_thread(self.step.compiled.small):
                    row = self._pass(epoch)
                    self._judge(row, patience)
                self.history.stopped_early |= bool(outputs.callback and outputs.callback(row))
                outputs.append(row)
                self.bar.row(row, self.valid is not None)
                if self.stop.received is not None:
                    self._stop()
                if outputs.affordable() or self.history.stopped_early or epoch + 1 == epochs:
                    self._save()
        if self.valid is not None:
            self.weights.restore(self.best)
        else:
            self.history.best_epoch = len(self.history) or None
        return self.history

    def _pass(self, epoch: int) -> dict[str, float]:
        """One epoch and its validation, as a row of the history."""
        self._epoch(epoch)
        row = {**self._row(epoch), "valid_bound": self._validate(epoch)}
        row = {name: row[name] for name in COLUMNS}
        self.history.rows.append(row)
        self.tally = None
        return row

    def _epoch(self, epoch: int) -> None:
        """Take the steps of an epoch, or those that are left of it."""
        for module in self.modules:
            module.train()
        batches = self._batches()
        tally = self.tally
        assert tally is not None
        start, ended = time.perf_counter(), False
        while not ended:
            before = tally.taken
            since = before % CHECK_EVERY  # not zero where a run goes on that was interrupted here
            with self.step.guarded(flush=since == 0):
                for batch in itertools.islice(batches, CHECK_EVERY - since):
                    beta, skipped = self._set_schedules(), self.step.skipped
                    report = self._take(batch, beta)
                    if self.step.skipped > skipped:
                        tally.skip()
                    else:
                        self._note(batch, beta, report)
                    self.count += 1
                    self.bar.step(epoch, tally)
                    if self.outputs.due() or self.stop.received is not None:
                        tally.seconds += time.perf_counter() - start
                        start = time.perf_counter()
                        failures.check(self)
                        if self.stop.received is not None:
                            self._stop()
                        self._save()
            failures.check(self)
            ended = tally.taken - before < CHECK_EVERY - since
        if self.processes is not None:
            self.processes.settle(self.modules, self.step.parameters)
        tally.seconds += time.perf_counter() - start

    def _batches(self) -> Iterator[tuple[Tensor, ...]]:
        """The batches of an epoch that are still to be taken.

        The order of an epoch follows from the random states at its beginning. So the batches that
        were taken before an interruption are drawn once more, and left out.
        """
        source = self.train.source
        if self.tally is None:
            self.tally = Tally(files.random_states(self.train.device, source))
            return iter(self.train.indices() if self.train.by_index else self.train)
        now = files.random_states(self.train.device, source)
        files.restore_random_states(self.tally.random, self.train.device, source)
        if self.train.by_index:
            batches: Iterator[tuple[Tensor, ...]] = iter(self.train.indices())
            for _ in itertools.islice(batches, self.tally.taken):
                pass
        else:
            batches = self.train.after(self.tally.taken)
        files.restore_random_states(now, self.train.device, source)
        return batches

    def _note(self, batch: tuple[Tensor, ...], beta: float, report: Report) -> None:
        """Count a step in, and let a schedule with feedback hear of it."""
        assert self.tally is not None
        size = batch[0].shape[0]
        self.tally.add(report, beta, size)
        # A batch of rows is small, and may be looked at once more; others would take memory.
        self.recent.append(batch if self.train.by_index else None)
        if self.beta.feedback:
            seen = report.reconstruction.item(), report.kl.item()
            self.beta.update(*(value / size for value in seen))

    def _row(self, epoch: int) -> dict[str, float]:
        assert self.tally is not None
        if not self.tally.sizes:
            raise failures.stopped(
                self,
                self.count, "bound", f"all {self.tally.skipped} steps of the epoch were skipped, "
                "for no loss and gradients were finite. ",
            )  # fmt: skip
        lr = float(self.step.optimizer.param_groups[0]["lr"])  # type: ignore[union-attr]
        return {"epoch": epoch + 1, "step": self.count, "lr": lr, **self.tally.means()}

    def _take(self, batch: tuple[Tensor, ...], beta: float) -> Report:
        if self.layout is None:
            self.layout = [(list(x.shape), list(x.stride()), x.dtype) for x in batch]
        try:
            return self.step(*batch, beta=beta)
        except InvalidParameters as error:
            raise failures.stopped(self, self.count + 1, "parameters", f"{error} ") from error
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
        with evaluation_mode(*self.programs), apart, self.judged.guarded():
            torch.manual_seed(self.seed)
            for batch in self.valid:
                if self.stop.received is not None:
                    break
                report, _ = self._judge_batch(None, *batch)
                bound = report.bound.item()
                if not math.isfinite(bound):
                    raise failures.of_validation(self, bound, epoch, count, count + len(batch[0]))
                total += bound
                count += len(batch[0])
        if self.stop.received is not None:
            self._stop()  # with the random state of training again
        return total / count

    def _judge(self, row: dict[str, float], patience: int | None) -> None:
        if self.valid is None:
            return
        if row["valid_bound"] > self.best_bound:
            self.best_bound, self.waited = row["valid_bound"], 0
            self.history.best_epoch = int(row["epoch"])
            self.best = self.weights.copy()
        elif self.count > self.beta.warmup_steps:
            self.waited += 1
        self.history.stopped_early |= patience is not None and self.waited >= patience

    def _save(self) -> None:
        """Write the checkpoint, if there is to be one, by the first of the processes."""
        if self.outputs.checkpoint is None:
            return
        start = time.monotonic()
        if self.processes is None or self.processes.first:
            self.save(self.outputs.checkpoint)
        self.outputs.saved(time.monotonic() - start)  # the others count steps and time, too

    def _stop(self) -> NoReturn:
        """Save everything, and end training after a signal."""
        self._save()
        self.stop.answer(
            f"training was stopped at step {self.count} and saved; resume=True goes on from "
            f"{self.outputs.checkpoint}"
        )
