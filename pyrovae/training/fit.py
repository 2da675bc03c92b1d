"""Train any Pyro model and guide: epochs, schedules, validation, early stopping, checkpoints."""

import copy
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import pyro
import pyro.infer
import torch
from torch import Tensor

from pyrovae.data.batches import Batches, as_batches
from pyrovae.estimators import ELBO, Estimator
from pyrovae.programs import Program, check_data, evaluation_mode, modules_of, parameters_of
from pyrovae.schedules import Constant, Schedule
from pyrovae.svi import Report, Step
from pyrovae.training.history import History, NonFiniteLoss

__all__ = ["History", "NonFiniteLoss", "fit"]


CHECK_EVERY = 50  # steps between looks at the losses, each of which waits for the device


def fit(
    model: Program,
    guide: Program,
    train: Any,
    *,
    valid: Any = None,
    estimator: pyro.infer.ELBO | None = None,
    beta: float | Schedule = 1.0,
    epochs: int = 100,
    batch_size: int = 128,
    lr: float | Schedule = 1e-3,
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer] | None = None,
    clip_norm: float | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    patience: int | None = None,
    transform: Callable[..., Any] | None = None,
    shuffle: bool = True,
    progress: bool | None = None,
    log: str | os.PathLike | None = None,
    checkpoint: str | os.PathLike | None = None,
    resume: bool = False,
    callback: Callable[[dict[str, float]], Any] | None = None,
    capture: bool = True,
    compile: bool | Literal["auto"] = "auto",
) -> History:
    """Train a model and a guide by stochastic variational inference.

    The loss is the negative bound averaged over each batch. With validation data the weights of the epoch with
    the highest validation bound (at beta = 1) are kept.

    Args:
        model, guide: Pyro programs; bound methods, modules or functions.
        train: An array or tensor, a tuple of them (handed to both programs as arguments), a ``Dataset`` or a
            ``DataLoader``. Floating arrays take the parameters' precision. Of a dataset's items, elements
            beyond the programs' arguments (such as labels) are left out.
        valid: Validation data of the same kinds.
        estimator: One of :mod:`pyrovae.estimators` or a stock Pyro ELBO; default ``ELBO()``.
        beta: Factor on the KL term, or a schedule of it over steps.
        epochs: Passes over the data.
        batch_size: Data in a batch; the last batch of an epoch may be smaller.
        lr: Learning rate of the default optimiser, or a schedule of it over steps for any optimiser.
        optimizer: Makes a torch optimiser from a list of parameters; default Adam.
        clip_norm: Largest norm of all gradients together.
        seed: Of batch order, draws and ``transform``; the global random state is left as it was.
        device: Where to train; default CUDA when available. Modules behind the programs are moved there.
        patience: Stop after this many epochs without a better validation bound; epochs of a warm-up of beta
            do not count.
        transform: Applied to each training batch, such as a new binarisation. One whose attribute
            ``capturable`` is true (as :func:`pyrovae.data.resample`) becomes part of the captured step.
        shuffle: Whether each epoch draws a new order.
        progress: Show a progress bar; default only on a terminal.
        log: A file to append a JSON line to after each epoch.
        checkpoint: A file to save the whole training state to after each epoch.
        resume: Go on from ``checkpoint`` if it exists; the result equals that of an uninterrupted run.
        callback: Called with each epoch's row; returning True stops training.
        capture, compile: How the training step runs, as for :class:`pyrovae.svi.Step`.

    Returns:
        The :class:`History`.

    Raises:
        ValueError: For empty, non-finite or misshapen data, data outside the likelihood's support, or
            arguments out of range.
        NonFiniteLoss: If the loss stops being finite. The last good weights are restored.
    """
    _check_arguments(
        epochs=epochs, batch_size=batch_size, patience=patience, clip_norm=clip_norm, lr=lr
    )
    if patience is not None and valid is None:
        raise ValueError(
            "patience needs validation data to watch; give valid=..., or drop patience."
        )
    if resume and checkpoint is None:
        raise ValueError("resume=True needs checkpoint=..., the file to go on from.")
    estimator = ELBO() if estimator is None else estimator
    if not isinstance(estimator, pyro.infer.ELBO):
        raise TypeError(
            f"estimator must be an instance of a pyrovae.estimators class or a Pyro ELBO, found {estimator!r}."
        )
    # A copy: a schedule that listens to this run is as given for the next one.
    beta_schedule = copy.deepcopy(beta) if isinstance(beta, Schedule) else Constant(beta)
    if beta_schedule.feedback and not isinstance(estimator, Estimator):
        raise ValueError(
            f"{beta_schedule!r} listens to the reconstruction and the KL, which {type(estimator).__name__} does not "
            "report. Use one of pyrovae.estimators, or a beta that is a function of the step."
        )
    lr_schedule = lr if isinstance(lr, Schedule) else Constant(lr)
    where = torch.device(device) if device is not None else _default_device()
    for module in modules_of(model, guide):
        module.to(where)

    with ExitStack() as stack:
        devices = [where] if where.type == "cuda" else []
        stack.enter_context(torch.random.fork_rng(devices=devices))
        torch.manual_seed(seed)
        like = next((p for m in modules_of(model, guide) for p in m.parameters()), None)
        dtype = torch.get_default_dtype() if like is None else like.dtype
        make = {"device": where, "dtype": dtype, "programs": (model, guide)}
        train_data = as_batches(
            train, batch_size, shuffle=shuffle, transform=transform, name="train", **make
        )
        valid_data = (
            None
            if valid is None
            else as_batches(valid, batch_size, shuffle=False, name="valid", **make)
        )
        for data in (train_data, valid_data):
            if data is not None:
                check_data((model, guide), *data.sample())
        parameters = parameters_of(model, guide, *train_data.first())
        if not parameters:
            raise ValueError(
                "The programs have no parameters to train. Declare them by nn.Module or pyro.param."
            )
        # Validation of distributions would cost more than the step, and was done above once.
        stack.enter_context(pyro.validation_enabled(False))
        optim = (
            optimizer(parameters)
            if optimizer
            else torch.optim.Adam(parameters, lr=lr_schedule(0), fused=True)
        )
        trainer = _Trainer(
            model=model,
            guide=guide,
            step=Step(
                model,
                guide,
                estimator,
                optim,
                parameters,
                clip_norm=clip_norm,
                transform=train_data.gather if train_data.by_index else None,
                capture=capture,
                compile=compile,
                steps=epochs * train_data.num_batches,
            ),
            train=train_data,
            valid=valid_data,
            beta=beta_schedule,
            lr=None if optimizer and not isinstance(lr, Schedule) else lr_schedule,
            seed=seed,
        )
        return trainer.run(
            epochs,
            patience=patience,
            progress=progress,
            log=None if log is None else Path(log),
            checkpoint=None if checkpoint is None else Path(checkpoint),
            resume=resume,
            callback=callback,
        )


class _Trainer:
    """The state of a training run, from one epoch to the next."""

    def __init__(
        self,
        *,
        model: Program,
        guide: Program,
        step: Step,
        train: Batches,
        valid: Batches | None,
        beta: Schedule,
        lr: Schedule | None,
        seed: int,
    ):
        self.model, self.guide, self.step = model, guide, step
        self.train, self.valid = train, valid
        self.beta, self.lr, self.seed = beta, lr, seed
        self.history = History()
        self.count = 0  # steps taken
        self.waited = 0  # epochs since the best one
        self.best_bound = -math.inf
        self.state = _state_tensors(model, guide, step.parameters)
        self.best = self.good = self._snapshot()

    def run(
        self,
        epochs: int,
        *,
        patience: int | None,
        progress: bool | None,
        log: Path | None,
        checkpoint: Path | None,
        resume: bool,
        callback: Callable[[dict[str, float]], Any] | None,
    ) -> History:
        if resume and checkpoint is not None and checkpoint.exists():
            self._load(checkpoint)
        from tqdm.auto import tqdm

        first = len(self.history)
        hidden = None if progress is None else not progress
        with tqdm(
            total=epochs,
            initial=first,
            desc="fit",
            unit="epoch",
            disable=hidden,
            dynamic_ncols=True,
        ) as bar:
            for epoch in range(first, epochs):
                if self.history.stopped_early:
                    break
                row = self._epoch(epoch)
                self._judge(row, patience)
                stop = bool(callback(row)) if callback else False
                self.history.stopped_early |= stop
                if log is not None:
                    with log.open("a") as lines:
                        lines.write(json.dumps(row) + "\n")
                if checkpoint is not None:
                    self._save(checkpoint)
                bar.update()
                shown = {"train": f"{row['train_bound']:.2f}", "kl": f"{row['kl']:.2f}"}
                bar.set_postfix(
                    shown if self.valid is None else {**shown, "valid": f"{row['valid_bound']:.2f}"}
                )
        if self.valid is not None:
            self._restore(self.best)
        else:
            self.history.best_epoch = len(self.history) or None
        return self.history

    def _epoch(self, epoch: int) -> dict[str, float]:
        modules = modules_of(self.model, self.guide)
        for module in modules:
            module.train()
        start = time.perf_counter()
        reports: list[Report] = []
        betas: list[float] = []
        sizes: list[int] = []
        checked = 0
        for batch in self.train.indices() if self.train.by_index else self.train:
            betas.append(self.beta(self.count))
            if self.lr is not None:
                for group in self.step.optimizer.param_groups:
                    group["lr"] = self.lr(self.count)
            if isinstance(self.step.estimator, Estimator):
                self.step.estimator.advance(self.count)
            reports.append(self.step(*batch, beta=betas[-1]))
            sizes.append(batch[0].shape[0])
            if self.beta.feedback:
                seen = reports[-1]
                self.beta.update(seen.reconstruction.item() / sizes[-1], seen.kl.item() / sizes[-1])
            self.count += 1
            if len(reports) - checked >= CHECK_EVERY:
                self._check_finite(reports[checked:], epoch)
                checked = len(reports)
        self._check_finite(reports[checked:], epoch)
        seconds = time.perf_counter() - start
        bounds, reconstructions, kls = (
            torch.stack(c).double().cpu() for c in zip(*reports, strict=True)
        )
        extra = torch.tensor(betas, dtype=torch.float64) - 1.0
        at_one = bounds + torch.where(extra == 0, 0.0, extra * kls)
        total = sum(sizes)
        row = {
            "epoch": epoch + 1,
            "step": self.count,
            "train_bound": (at_one.sum() / total).item(),
            "valid_bound": self._validate(),
            "reconstruction": (reconstructions.sum() / total).item(),
            "kl": (kls.sum() / total).item(),
            "beta": betas[-1],
            "lr": float(self.step.optimizer.param_groups[0]["lr"]),
            "seconds": seconds,
        }
        self.history.rows.append(row)
        return row

    def _validate(self) -> float:
        """Mean bound over the validation data at beta = 1; every epoch sees the same draws."""
        if self.valid is None:
            return math.nan
        estimator, total, count = self.step.estimator, 0.0, 0
        devices = [self.valid.device] if self.valid.device.type == "cuda" else []
        with (
            evaluation_mode(self.model, self.guide),
            torch.no_grad(),
            torch.random.fork_rng(devices=devices),
        ):
            torch.manual_seed(self.seed)
            for batch in self.valid:
                if isinstance(estimator, Estimator):
                    total += estimator.bound(self.model, self.guide, *batch).double().sum().item()
                else:
                    total -= float(estimator.loss(self.model, self.guide, *batch))  # type: ignore[attr-defined]
                count += batch[0].shape[0]
        return total / count

    def _judge(self, row: dict[str, float], patience: int | None) -> None:
        if self.valid is None:
            return
        if row["valid_bound"] > self.best_bound:
            self.best_bound, self.waited = row["valid_bound"], 0
            self.history.best_epoch = int(row["epoch"])
            self.best = self._snapshot()
        elif self.count > self.beta.warmup_steps:
            self.waited += 1
        if patience is not None and self.waited >= patience:
            self.history.stopped_early = True

    def _check_finite(self, reports: Sequence[Report], epoch: int) -> None:
        if not reports:
            return
        values = torch.stack([torch.stack(tuple(report)) for report in reports])
        known = (
            values[:, :1] if values[:, 1:].isnan().all() else values
        )  # a stock ELBO reports its loss alone
        bad = ~torch.isfinite(known).all(1)
        if not bad.any() and all(torch.isfinite(p).all() for p in self.step.parameters):
            self.good = self._snapshot()
            return
        if bad.any():
            index = int(bad.nonzero()[0])
            names = ("bound", "reconstruction", "kl")
            term = next(
                names[i]
                for i in (1, 2, 0)
                if i < known.shape[1] and not torch.isfinite(known[index, i])
            )
            value = known[index, names.index(term)].item()
        else:
            index, term, value = len(reports) - 1, "weights", math.nan
        step = self.count - len(reports) + index + 1
        self._restore(self.good)
        raise NonFiniteLoss(
            f"Training stopped at step {step} (epoch {epoch + 1}): the {term} became {value}. The last good weights "
            "are back in place. Lower lr, clip gradients (clip_norm=...), or give the likelihood a larger minimum "
            "scale.",
            step=step,
            epoch=epoch + 1,
            term=term,
            history=self.history,
        )

    def _snapshot(self) -> list[Tensor]:
        return [tensor.detach().clone() for tensor in self.state]

    @torch.no_grad()
    def _restore(self, snapshot: list[Tensor]) -> None:
        for tensor, value in zip(self.state, snapshot, strict=True):
            tensor.copy_(value)

    def _save(self, path: Path) -> None:
        state = {
            "weights": self._snapshot(),
            "best": self.best,
            "optimizer": self.step.optimizer.state_dict(),
            "rows": self.history.rows,
            "best_epoch": self.history.best_epoch,
            "stopped_early": self.history.stopped_early,
            "count": self.count,
            "waited": self.waited,
            "best_bound": self.best_bound,
            "beta": self.beta.state_dict(),
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state(self.train.device)
            if self.train.device.type == "cuda"
            else None,
        }
        part = path.with_name(path.name + ".part")
        torch.save(state, part)
        part.replace(path)  # an interrupted save leaves the last checkpoint whole

    def _load(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            weights, best = state["weights"], state["best"]
        except Exception as error:
            raise ValueError(
                f"{path} is not a checkpoint of fit ({type(error).__name__}). Remove it."
            ) from error
        if [w.shape for w in weights] != [t.shape for t in self.state]:
            raise ValueError(
                f"{path} holds the weights of another model. Remove it, or give another checkpoint."
            )
        self._restore(weights)
        self.best = [b.to(t.device) for b, t in zip(best, self.state, strict=True)]
        self.good = self._snapshot()
        self.step.optimizer.load_state_dict(state["optimizer"])
        self.history.rows = state["rows"]
        self.history.best_epoch, self.history.stopped_early = (
            state["best_epoch"],
            state["stopped_early"],
        )
        self.count, self.waited, self.best_bound = (
            state["count"],
            state["waited"],
            state["best_bound"],
        )
        self.beta.load_state_dict(state["beta"])
        torch.set_rng_state(state["random"])
        if state["cuda_random"] is not None:
            torch.cuda.set_rng_state(state["cuda_random"], self.train.device)


def _state_tensors(model: Program, guide: Program, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Everything that training changes: parameters, and buffers of the modules behind the programs."""
    found = {id(p): p for p in parameters}
    for module in modules_of(model, guide):
        found.update({id(b): b for b in module.buffers()})
    return [t.data if isinstance(t, torch.nn.Parameter) else t for t in found.values()]


def _default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _check_arguments(
    *, epochs: int, batch_size: int, patience: int | None, clip_norm: float | None, lr: Any
) -> None:
    for name, value in {"epochs": epochs, "batch_size": batch_size, "patience": patience}.items():
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or value < 1
        ):
            raise ValueError(f"{name} must be a positive integer, found {value!r}.")
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"clip_norm must be positive, found {clip_norm}.")
    if not isinstance(lr, Schedule) and not (math.isfinite(lr) and lr > 0):
        raise ValueError(f"lr must be finite and positive, found {lr}.")
