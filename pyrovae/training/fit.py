"""Train any Pyro model and guide."""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyro
import pyro.infer
import torch
from torch import Tensor

from pyrovae.data.batches import as_batches
from pyrovae.declare import plain
from pyrovae.estimators import ELBO
from pyrovae.programs import (
    Program,
    alone,
    before_calls,
    check_data,
    find_device,
    floating_parameter,
    meet,
    modules_of,
    store_as_found,
)
from pyrovae.schedules import Constant, Schedule
from pyrovae.signals import ignored
from pyrovae.svi import Networks, Step
from pyrovae.training.arguments import (
    beta_schedule,
    check_clips,
    check_counts,
    check_schedules,
    made_by,
)
from pyrovae.training.distributed import Processes
from pyrovae.training.history import History, NonFiniteLoss
from pyrovae.training.loop import Trainer
from pyrovae.training.outputs import Outputs

__all__ = ["History", "NonFiniteLoss", "fit"]


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
    clip_value: float | None = None,
    nonfinite: Literal["stop", "skip"] = "stop",
    seed: int = 0,
    device: str | torch.device | None = None,
    patience: int | None = None,
    transform: Callable[..., Any] | None = None,
    shuffle: bool = True,
    drop_last: bool = False,
    progress: bool | None = None,
    log: str | os.PathLike | None = None,
    checkpoint: str | os.PathLike | None = None,
    checkpoint_every: int | timedelta = timedelta(minutes=10),
    resume: bool = False,
    callback: Callable[[dict[str, float]], Any] | None = None,
    capture: bool = True,
    compile: bool | Literal["auto"] = "auto",
    networks: Networks = "full",
) -> History:
    """Train a model and a guide by stochastic variational inference.

    The loss is the negative bound averaged over each batch. With validation data the weights of the
    epoch with the highest validation bound (at beta = 1) are kept.

    Args:
        model, guide: Pyro programs; bound methods, modules or functions.
        train: A NumPy array, a tensor or nested lists of numbers; a data frame of pandas, polars or
            pyarrow; a SciPy sparse matrix; an AnnData object, which means its ``X``; a memory map;
            a data set of an HDF5 file; a tuple or list of these, handed to both programs as
            arguments; or a ``Dataset`` or a ``DataLoader``. Sparse matrices and files of more than
            256 MiB are read batch by batch, as data sets and loaders are. Floating-point numbers
            take the parameters' precision. Of a data set's items, elements beyond the model's
            arguments (such as labels) are left out. Arguments with a default other than None, and
            those after them, are settings and get no element.
        valid: Validation data of the same kinds.
        estimator: One of :mod:`pyrovae.estimators` or a stock Pyro ELBO; default ``ELBO()``.
        beta: Factor on the KL term, or a schedule of it over steps.
        epochs: Passes over the data.
        batch_size: Data in a batch; the last batch of an epoch may be smaller.
        lr: Learning rate of the default optimiser, or a schedule of it over steps for any
            optimiser.
        optimizer: Makes a torch optimiser from a list of parameters; default Adam.
        clip_norm: Largest norm of all gradients together.
        clip_value: Largest absolute value of an element of a gradient, before ``clip_norm``.
        nonfinite: ``"stop"`` ends training at a step that is not finite. ``"skip"`` leaves such
            a step out, so that weights and optimiser stay as they were, and counts it in the
            history; each step then waits for the device.
        seed: Of batch order, draws and ``transform``; the global random state is left as it was.
        device: Where to train; default CUDA when available. Modules behind the programs are moved
            there.
        patience: Stop after this many epochs without a better validation bound; epochs of a warm-up
            of beta do not count.
        transform: Applied to each training batch, such as a new binarisation. One whose attribute
            ``capturable`` is true (as :func:`pyrovae.data.resample`) becomes part of the captured
            step.
        shuffle: Whether each epoch draws a new order.
        drop_last: Whether to leave out the last batch of an epoch where it is smaller than the
            others.
        progress: Show a progress bar; default only on a terminal.
        log: A file to append a JSON line to after each epoch.
        checkpoint: A file to save the whole training state to after epochs, and when SIGINT or
            SIGTERM asks to stop; the first one is followed after the step at hand, a second one at
            once. An epoch that ends too soon after the last save is not followed by one, so that
            saving takes about a hundredth of the time at most; the first and the last epoch always
            are.
        checkpoint_every: Save it within an epoch too, after so many steps or so much time.
        resume: Go on from ``checkpoint`` if it exists, within the epoch where it was saved so.
            Weights and history equal those of an uninterrupted run, bit for bit, with the same
            arguments and data. The batches of the epoch that were taken before are drawn again and
            left out: a ``DataLoader`` reads them once more.
        callback: A function of one epoch's row, a dict of the columns of :class:`History`, that is
            called after each epoch. If it returns True, training stops; an error in it ends
            training, too. :class:`~pyrovae.training.TensorBoard`,
            :class:`~pyrovae.training.MLflow` and :class:`~pyrovae.training.Wandb` are callbacks.
        capture, compile: How the training step runs, as for :class:`pyrovae.svi.Step`.
        networks: ``"bfloat16"`` rounds the products inside dense and convolutional layers of the
            training step, as for :class:`pyrovae.svi.Step`. Validation bounds stay in full
            precision.

    Returns:
        The :class:`History`.

    Raises:
        ValueError: For empty, non-finite or misshapen data, data outside the likelihood's support,
            or arguments out of range.
        FileNotFoundError: If there is no folder for ``log`` or ``checkpoint``.
        KeyboardInterrupt: After a signal, once the checkpoint is saved.
        NonFiniteLoss: If the loss stops being finite. The last good weights are restored; the
            message names the batch, and the site and the data in it where that can be told.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian(shift=2.0)
        >>> history = pv.fit(oracle.model, oracle.guide, oracle.sample(64), epochs=20, lr=0.05)
        >>> len(history), bool(history["train_bound"][-1] > history["train_bound"][0])
        (20, True)
    """
    epochs, batch_size, patience, seed = map(plain, (epochs, batch_size, patience, seed))
    clip_norm, clip_value, lr, beta = map(plain, (clip_norm, clip_value, lr, beta))
    if not isinstance(seed, int):
        raise TypeError(f"seed must be an integer, found {seed!r}.")
    check_counts(epochs=epochs, batch_size=batch_size, patience=1 if patience is None else patience)
    check_clips(clip_norm=clip_norm, clip_value=clip_value)
    check_schedules(lr=lr, beta=beta)
    if nonfinite not in ("stop", "skip"):
        raise ValueError(f"nonfinite must be 'stop' or 'skip', found {nonfinite!r}.")
    if patience is not None and valid is None:
        raise ValueError("patience needs validation data: give valid=..., or drop patience.")
    if resume and checkpoint is None:
        raise ValueError("resume=True needs checkpoint=..., the file to go on from.")
    estimator = ELBO() if estimator is None else estimator
    schedule = beta_schedule(beta, estimator)
    where = find_device(device)
    processes = Processes.join(where)
    log_path, saved = (None if path is None else Path(path) for path in (log, checkpoint))
    outputs = Outputs(progress, log_path, saved, callback, checkpoint_every)
    if processes is not None:
        where = processes.device
        outputs = processes.outputs(outputs)
    with ExitStack() as stack:
        stack.enter_context(alone())
        stack.enter_context(store_as_found(model, guide))
        for module in modules_of(model, guide):
            module.to(where)
        if processes is not None and not processes.first:
            stack.enter_context(ignored())  # the others end with the first
        stack.enter_context(torch.random.fork_rng([where] if where.type == "cuda" else []))
        stack.enter_context(_own_random_state(seed))
        like = floating_parameter(model, guide)
        dtype = torch.get_default_dtype() if like is None else like.dtype
        programs = model, guide
        check = partial(_check_batch, programs)
        batches = partial(as_batches, device=where, dtype=dtype, programs=programs, check=check)
        order: dict[str, Any] = {"shuffle": shuffle, "drop_last": drop_last}
        train_data = batches(train, batch_size, transform=transform, name="train", **order)
        check_data(programs, *train_data.sample())
        valid_data = None
        if valid is not None:
            valid_data = batches(valid, batch_size, shuffle=False, name="valid")
            check_data(programs, *valid_data.sample())
        with before_calls(lambda module: module.to(where)):
            parameters, modules = meet(model, guide, *train_data.first())
        if not parameters:
            raise ValueError(
                "The programs have no parameters to train. Declare them by nn.Module or pyro.param."
            )
        if processes is not None:
            processes.begin(modules, parameters, train_data, valid_data)
        # Validation of distributions would cost more than the step, and was done above once.
        stack.enter_context(pyro.validation_enabled(False))
        lr_schedule = lr if isinstance(lr, Schedule) else Constant(lr)
        how: dict[str, Any] = {"capture": capture, "compile": compile}
        make_optimizer = optimizer or partial(torch.optim.Adam, lr=lr_schedule(0), fused=True)
        step = Step(
            *programs,
            estimator,
            made_by(make_optimizer, parameters),
            parameters,
            clip_norm=clip_norm,
            clip_value=clip_value,
            skip=nonfinite == "skip",
            transform=train_data.gather if train_data.by_index else None,
            steps=epochs * train_data.num_batches,
            networks=networks,
            processes=processes,
            modules=modules,
            **how,
        )
        trainer = Trainer(
            programs,
            modules,
            step,
            train_data,
            valid_data,
            beta=schedule,
            lr=None if optimizer and not isinstance(lr, Schedule) else lr_schedule,
            seed=seed,
            epochs=epochs,
            **how,
        )
        return trainer.run(epochs, patience, outputs, resume=resume)


@contextmanager
def _own_random_state(seed: int) -> Iterator[None]:
    """Seed every generator that a transform may draw from; NumPy's and Python's come back as they
    were.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def _check_batch(programs: tuple[Program, Program], *batch: Any) -> None:
    """As :func:`check_data`, support included, though Pyro's validation is off while training."""
    with pyro.validation_enabled(True):
        check_data(programs, *batch)
