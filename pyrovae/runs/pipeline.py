"""Declare, fit, evaluate, and write a run: what ``pyrovae train`` does, as functions."""

import inspect
import math
import sys
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from pyrovae.data import NAMES, Splits
from pyrovae.evidence import Evidence, log_marginal
from pyrovae.likelihoods import Bernoulli
from pyrovae.models.base import Model
from pyrovae.runs.conditions import arguments, condition_of, is_conditional
from pyrovae.runs.config import Config, declare, load_data
from pyrovae.runs.page import report
from pyrovae.runs.programs import programs, set_levels
from pyrovae.runs.run import Run
from pyrovae.runs.terminal import binarized, headline, say, seeded
from pyrovae.training import History, NonFiniteLoss, checkpoint, fit

__all__ = ["evaluate", "resume", "settle", "train"]


def train(config: Config, path: str | PathLike | None = None) -> Run:
    """Declare a model, fit it, estimate its evidence on the test data, and write all to a folder.

    Weights and evidence are written before figures and page; a figure or page that cannot be made
    is a warning.

    Args:
        config: What to do.
        path: A new or empty folder; default the first free ``runs/DATA-N``.

    Returns:
        The finished :class:`Run`.

    Raises:
        FileExistsError: If there is something in the folder already.
        Exception: What data, parts, training and evidence raise; a run without a single finished
            epoch is removed again.
    """
    config, splits = settle(config)
    vae, parts = _start(config, splits)
    return _train(Run.create(config, path), vae, parts, splits, resume=False)


def resume(path: str | PathLike) -> Run:
    """Go on with an interrupted run, to its end.

    Raises:
        ValueError: If the run is finished, or has no checkpoint.
    """
    run = Run.open(path, unfinished=True)
    if not checkpoint.exists(run.checkpoint):
        reason = "it is finished" if run.weights.is_file() else "it has no checkpoint.pt"
        raise ValueError(
            f"Cannot go on with {run.path}: {reason}. Start anew with --config {run.config_file}."
        )
    splits = load_data(run.config)
    vae, parts = _start(run.config, splits)
    return _train(run, vae, parts, splits, resume=True)


def settle(config: Config) -> tuple[Config, Splits]:
    """The configuration with every choice made that was left to the data, and the data."""
    path = Path(config.data).expanduser()
    if path.exists() and config.data not in NAMES:
        config = replace(config, data=str(path.resolve()))
    taken = inspect.signature(config.model_class).parameters
    if config.condition_dim is None and "condition_dim" in taken:
        # From all the data there are: a limited part may lack a label.
        size = load_data(replace(config, limit=None, binarize="none")).condition_dim
        config = replace(config, condition_dim=size)
    splits = load_data(replace(config, dequantize=False))
    discrete = getattr(config.build("likelihood"), "discrete", False)
    if config.dequantize and discrete:
        raise ValueError(
            f"dequantize makes real numbers, and {config.build('likelihood')!r} gives "
            "probabilities of levels. Leave it out, or take a density such as Gaussian."
        )
    if config.binarize == "auto":
        grey = isinstance(config.build("likelihood"), Bernoulli) and splits.is_grey
        config = replace(config, binarize="threshold" if grey else "none")
    return config, load_data(config)


def evaluate(vae: Model, splits: Splits, part: str, method: Any, seed: int = 0) -> Evidence:
    """The evidence of a model on one part of the data, ``"train"``, ``"valid"`` or ``"test"``."""
    density = not vae.likelihood.discrete
    evidence = log_marginal(
        *programs(vae),
        arguments(vae, splits, part),
        method=method,
        seed=seed,
        data_scale=splits.data_scale if density else 1.0,
        progress=sys.stderr.isatty(),
    )
    if (
        density and splits.holds_levels and not hasattr(vae, "num_levels")
    ):  # a density on a grid has no bits per dimension
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


def _train(run: Run, vae: Any, parts: dict[str, Any], splits: Splits, *, resume: bool) -> Run:
    say(
        "data",
        f"{splits!r}".removeprefix("Splits(").removesuffix(")") + binarized(run.config.binarize),
    )
    say("model", f"{vae!r}")
    say("run", str(run.path))
    try:
        history = _fit(run, vae, parts, splits, resume)
    except (Exception, KeyboardInterrupt) as error:
        if not resume and not run.has_epochs:
            run.discard()
        elif isinstance(error, NonFiniteLoss):
            run.save_weights(vae, condition_of(vae, splits))
            say("saved", f"the last good weights to {run.weights}")
        elif isinstance(error, KeyboardInterrupt):
            advice = f"go on with: pyrovae train --resume {run.path}"
            raise KeyboardInterrupt(advice) from None
        raise
    run.save_weights(vae, condition_of(vae, splits))
    checkpoint.remove(run.checkpoint)
    seconds = math.fsum(history["seconds"])
    best = f"weights of epoch {history.best_epoch} kept"
    say("trained", f"{len(history)} epochs in {seconds:.1f} s, {best}")
    evidence = _evidence(run, vae.eval(), parts["method"], splits)
    report(run, vae, splits, evidence, history)
    if evidence is not None:
        say("", headline(evidence, splits.name, "test"))
    return run


def _fit(run: Run, vae: Any, parts: dict[str, Any], splits: Splits, resume: bool) -> History:
    config = run.config
    return fit(
        *programs(vae),
        arguments(vae, splits, "train"),
        valid=arguments(vae, splits, "valid"),
        estimator=parts["estimator"],
        beta=parts["beta"],
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        patience=config.patience,
        clip_norm=config.clip_norm,
        seed=config.seed,
        device=config.device,
        transform=splits.transform,
        log=run.metrics,
        checkpoint=run.checkpoint,
        resume=resume,
    )


def _evidence(run: Run, vae: Any, method: Any, splits: Splits) -> Evidence | None:
    """Evidence, written to the run; None, with the reason told, for a model that has none."""
    try:
        evidence = evaluate(vae, splits, "test", method, run.config.seed)
    except KeyboardInterrupt:
        advice = f"the weights are saved: go on with pyrovae evaluate {run.path}"
        raise KeyboardInterrupt(advice) from None
    except ValueError as error:  # such as that of a guide without a density
        say("evidence", "none. " + str(error).splitlines()[0])
        return None
    evidence.save(run.evidence)
    say("evidence", f"{evidence!r}")
    return evidence
