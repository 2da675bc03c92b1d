"""Declare, fit, evaluate, and write a run: what ``pyrovae train`` does, as functions."""

import math
import sys
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any

from pyrovae.data import Splits
from pyrovae.evidence import Evidence
from pyrovae.models.base import Model
from pyrovae.runs import together
from pyrovae.runs.building import declare, load_data
from pyrovae.runs.conditions import arguments, condition_of, is_conditional
from pyrovae.runs.config import Config
from pyrovae.runs.noise import set_levels
from pyrovae.runs.page import report
from pyrovae.runs.run import Run
from pyrovae.runs.settling import settle
from pyrovae.runs.terminal import binarized, headline, say, seeded
from pyrovae.runs.watching import Callback, watcher
from pyrovae.training import History, NonFiniteLoss, TensorBoard, checkpoint

__all__ = ["evaluate", "held_out", "resume", "settle", "train"]


def train(
    config: Config,
    path: str | PathLike | None = None,
    *,
    callback: Callback | None = None,
    verbose: bool = False,
    tensorboard: bool = False,
) -> Run:
    """Declare a model, fit it, estimate its evidence on the test data, and write all to a folder.

    Weights and evidence are written before figures and page; a figure or page that cannot be made
    is a warning.

    Args:
        config: What to do.
        path: A new or empty folder; default the first free ``runs/DATA-N``.
        callback: Called with each epoch's row; returning True stops training.
        verbose: Print a line for each epoch.
        tensorboard: Write each epoch to ``tensorboard`` in the folder, too.

    Returns:
        The finished :class:`Run`.

    Raises:
        FileExistsError: If there is something in the folder already.
        Exception: What data, parts, training and evidence raise; a run without a single finished
            epoch is removed again.

    Example:
        >>> import pyrovae as pv
        >>> run = pv.train(pv.Config(data="digits", epochs=20), "runs/first")  # doctest: +SKIP
        >>> pv.Evidence.load(run.evidence).interval()  # doctest: +SKIP
        >>> vae = pv.load_run("runs/first")  # doctest: +SKIP
    """
    if tensorboard:
        TensorBoard("")  # where it is missing it says so before there is a folder
    config, splits = settle(config)
    if together.restarted(config, path):
        assert path is not None
        return resume(path, callback=callback, verbose=verbose, tensorboard=tensorboard)
    vae, parts = _start(config, splits)
    if together.follows():
        return _follow(Run(together.told(None), config), vae, parts, splits, resume=False)
    run = Run.create(config, path)
    try:
        together.told(run.path)
        watch = watcher(run, callback, verbose, tensorboard)
        return _train(run, vae, parts, splits, watch, resume=False)
    finally:
        run.release()


def resume(
    path: str | PathLike,
    *,
    callback: Callback | None = None,
    trust: bool = False,
    verbose: bool = False,
    tensorboard: bool = False,
) -> Run:
    """Go on with an interrupted run, to its end: training, evidence, and report.

    Args:
        path: The run folder.
        callback: As in :func:`train`.
        trust: Whether its configuration may name classes that are not pyrovae's own.
        verbose, tensorboard: As for :func:`train`.

    Raises:
        BlockingIOError: If another process is at work in the folder.
        ValueError: If the run is finished, has no checkpoint, or its data have changed.

    Example:
        >>> from pyrovae.runs import resume
        >>> run = resume("runs/first")  # after an interruption  # doctest: +SKIP
    """
    run = Run.open(path, unfinished=True, trust=trust)
    _check_unfinished(run)
    if together.follows():
        splits = load_data(run.config)
        return _follow(run, *_start(run.config, splits), splits, resume=True)
    run.own()
    try:
        _check_unfinished(run)  # another process may have finished it meanwhile
        splits = load_data(run.config)
        run.check_data(splits)
        vae, parts = _start(run.config, splits)
        watch = watcher(run, callback, verbose, tensorboard)
        return _train(run, vae, parts, splits, watch, resume=True)
    finally:
        run.release()


def _check_unfinished(run: Run) -> None:
    if not checkpoint.exists(run.checkpoint):
        reason = "it is finished" if run.weights.is_file() else "it has no checkpoint.pt"
        raise ValueError(
            f"Cannot go on with {run.path}: {reason}. Start anew with --config {run.config_file}."
        )


def evaluate(
    vae: Model,
    splits: Splits,
    part: str,
    method: Any,
    seed: int = 0,
    parts: Path | None = None,
) -> Evidence:
    """The evidence of a model on one part of the data, ``"train"``, ``"valid"`` or ``"test"``.

    ``parts`` is a folder for what is finished, as of :func:`~pyrovae.log_marginal`.

    Example:
        >>> import torch, pyrovae as pv
        >>> vae = pv.VAE(data_shape=4, latent_dim=2)
        >>> splits = pv.data.split(torch.rand(60, 4).round())
        >>> evidence = evaluate(vae, splits, "test", pv.ImportanceSampling(50))
        >>> len(evidence) == len(splits.test)
        True
    """
    density = not vae.likelihood.discrete
    evidence = vae.log_marginal(
        arguments(vae, splits, part),
        method=method,
        seed=seed,
        data_scale=splits.data_scale if density else 1.0,
        progress=sys.stderr.isatty(),
        parts=parts,
    )
    levels = splits.holds_levels and vae.pair is None
    if density and levels:  # a density on a grid has no bits per dimension
        evidence.dataset.attrs["num_dims"] = 0
    if is_conditional(vae):
        evidence.dataset.attrs["given"] = "y"
    return evidence


def _start(config: Config, splits: Splits) -> tuple[Any, dict[str, Any]]:
    """The declared model, started at training data where it is declared so, and how to train it."""
    vae = declare(config, splits.data_shape)
    if config.dequantize == "variational":
        set_levels(vae, splits)
    if config.bias_from_data:
        seeded(config.seed, lambda: vae.initialize_from(splits.train))
    elif getattr(getattr(vae, "prior", None), "starts_at_data", False):
        seeded(config.seed, lambda: vae.prior.initialize_from(splits.train))
    return vae, {name: config.build(name) for name in ("estimator", "beta", "method")}


def _train(
    run: Run, vae: Any, parts: dict[str, Any], splits: Splits, watch: Callback, *, resume: bool
) -> Run:
    say(
        "data",
        f"{splits!r}".removeprefix("Splits(").removesuffix(")") + binarized(run.config.binarize),
    )
    say("model", f"{vae!r}")
    say("run", str(run.path))
    try:
        if not resume:
            run.note_data(splits)
        history = _fit(run, vae, parts, splits, watch, resume)
    except (Exception, KeyboardInterrupt) as error:
        if not resume and not checkpoint.exists(run.checkpoint):
            run.discard()
            raise
        if isinstance(error, NonFiniteLoss):
            run.save_weights(vae, condition_of(vae, splits))
            say("saved", f"the last good weights to {run.weights}")
        else:
            error.add_note(f"go on with: {run.resume_command}")
        raise
    try:
        run.save_weights(vae, condition_of(vae, splits))
        seconds = math.fsum(history["seconds"])
        best = f"weights of epoch {history.best_epoch} kept"
        say("trained", f"{len(history)} epochs in {seconds:.1f} s, {best}")
        evidence = _evidence(run, vae.eval(), parts["method"], splits)
        report(run, vae, splits, evidence, history)
    except (Exception, KeyboardInterrupt) as error:
        error.add_note(f"the weights are saved; go on with: {run.resume_command}")
        raise
    checkpoint.remove(run.checkpoint)
    if not isinstance(evidence, str):
        say("", headline(evidence, splits.name, "test"))
    return run


def _follow(run: Run, vae: Any, parts: dict[str, Any], splits: Splits, *, resume: bool) -> Run:
    """The work of a process that is not the first: the same steps, and its share of evidence."""
    _fit(run, vae, parts, splits, lambda row: None, resume)  # only the first one watches
    with suppress(ValueError):  # of which the first process tells
        if not run.evidence.is_file():
            held_out(run, vae.eval(), parts["method"], splits)
    return run


def held_out(run: Run, vae: Any, method: Any, splits: Splits) -> Evidence:
    """The evidence of the test data that a run declares.

    Raises:
        ValueError: If the model has none, such as one whose guide has no density.
    """
    return evaluate(vae, splits, "test", method, run.config.seed, run.parts)


def _fit(
    run: Run, vae: Any, parts: dict[str, Any], splits: Splits, watch: Callback, resume: bool
) -> History:
    config = run.config
    return vae.fit(
        arguments(vae, splits, "train"),
        valid=arguments(vae, splits, "valid"),
        estimator=parts["estimator"],
        beta=parts["beta"],
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        patience=config.patience,
        clip_norm=config.clip_norm,
        clip_value=config.clip_value,
        nonfinite=config.nonfinite,
        seed=config.seed,
        device=config.device,
        transform=splits.transform,
        log=run.metrics,
        checkpoint=run.checkpoint,
        resume=resume,
        callback=watch,
    )


def _evidence(run: Run, vae: Any, method: Any, splits: Splits) -> Evidence | str:
    """Evidence, written to the run, or the reason why the model has none."""
    if run.evidence.is_file():  # the run was interrupted after it
        run.manifest.check(run.evidence, strict=False)
        return Evidence.load(run.evidence)
    try:
        evidence = held_out(run, vae, method, splits)
    except ValueError as error:  # such as that of a guide without a density
        say("evidence", "none. " + str(error).splitlines()[0])
        return str(error)
    run.save_evidence(evidence)
    say("evidence", f"{evidence!r}")
    return evidence
