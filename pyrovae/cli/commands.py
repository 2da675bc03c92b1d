"""What the commands do, once their options are known."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrovae as pv
from pyrovae import catalog
from pyrovae.cli.conditions import arguments, check_alike, describe, drawing, is_conditional, settle
from pyrovae.cli.options import chosen_parts
from pyrovae.cli.show import binarized, drawn, figures, headline, say, seeded, span, write_page
from pyrovae.compare import compare_estimators, compare_models
from pyrovae.data import Splits
from pyrovae.evidence import Evidence, bdmc, convergence, where_the_nats_go
from pyrovae.runs import page as report
from pyrovae.runs.run import Run, build, load_data, new_file

__all__ = ["COMMANDS"]


def train(given: Any) -> None:
    """Declare, fit, evaluate, write."""
    given, splits = _settled(given)
    vae = build(given, splits.data_shape)
    _initialize(vae, splits, given)
    parts = chosen_parts(given, "train")
    estimator, beta, method = (parts[kind].build() for kind in ("estimator", "beta", "method"))
    run = _resumed(given) if given.resume is not None else Run.create(given)
    say("data", f"{splits!r}".removeprefix("Splits(").removesuffix(")") + binarized(given))
    say("model", f"{vae!r}")
    say("run", str(run.path))
    try:
        history = pv.fit(
            vae.model,
            vae.guide,
            arguments(vae, splits, "train"),
            valid=arguments(vae, splits, "valid"),
            estimator=estimator,
            beta=beta,
            epochs=given.epochs,
            batch_size=given.batch_size,
            lr=given.lr,
            patience=given.patience,
            clip_norm=given.clip_norm,
            seed=given.seed,
            device=given.device,
            transform=splits.transform,
            log=run.metrics,
            checkpoint=run.checkpoint,
            resume=given.resume is not None,
        )
    except KeyboardInterrupt:
        if not run.rows:
            run.discard()
            raise
        raise KeyboardInterrupt(f"go on with: pyrovae train --resume {run.path}") from None
    except Exception as error:
        _rescue(run, vae, splits, error)
        raise
    run.save_weights(vae, describe(vae, splits))
    run.checkpoint.unlink(missing_ok=True)
    seconds = sum(row["seconds"] for row in run.rows)
    say(
        "trained",
        f"{len(history)} epochs in {seconds:.1f} s, weights of epoch {history.best_epoch} kept",
    )
    vae.eval()
    evidence = _try_evidence(vae, splits, "test", method, given.seed)
    if evidence is not None:
        evidence.save(run.evidence)
    shown = figures(run, vae, splits, evidence, history.best_epoch)
    write_page(run, vae, splits, evidence, shown, f"{history!r}")
    say("report", str(run.path / "report.html"))
    if evidence is not None:
        print(headline(evidence, splits.name, "test", is_conditional(vae)))


def evaluate(given: Any) -> None:
    """Held-out evidence of a run."""
    run = Run.open(given.run)
    out = _free(given.out or new_file(run.path, "evidence", ".nc"), ".nc")
    method = chosen_parts(given, "evaluate")["method"].build()
    splits = load_data(run.given)
    if given.limit is not None:
        splits = splits.take(given.limit, seed=given.seed)
    vae = run.load_vae(given.device)
    evidence = _evidence(vae, splits, given.part, method, given.seed)
    evidence.save(out)
    print(f"{evidence!r}")
    saved = [out, *drawn(lambda path: report.evidence_figure(evidence, path), out)]
    data = arguments(vae, splits, given.part)
    if given.bdmc is not None:
        sandwich = bdmc(
            vae.model,
            vae.guide,
            num_data=given.bdmc,
            method=method,
            # Data are drawn anew, the labels they are drawn for are not.
            data=data if is_conditional(vae) else None,
            seed=given.seed,
            progress=sys.stderr.isatty(),
        )
        print(sandwich)
        beside = out.with_name(f"{out.stem}-sandwich.png")
        saved += drawn(lambda path: report.sandwich_figure(sandwich, path), beside)
    if given.nats:
        print(where_the_nats_go(vae.model, vae.guide, data, method=method, seed=given.seed))
    if given.convergence:
        rising = convergence(
            vae.model, vae.guide, data, num_particles=given.convergence, seed=given.seed
        )
        print(rising)
        beside = out.with_name(f"{out.stem}-convergence.png")
        saved += drawn(lambda path: report.axes_figure(rising.plot, path), beside)
    say("saved", " ".join(map(str, saved)))
    print(headline(evidence, splits.name, given.part, is_conditional(vae)))


def estimators(given: Any) -> None:
    """ELBO estimators at the weights of a run."""
    run = Run.open(given.run)
    out = _free(given.out or new_file(run.path, "estimators", ".nc"), ".nc")
    chosen = {name: catalog.find("estimator", name).build() for name in given.names}
    vae = run.load_vae(given.device)
    data = arguments(vae, load_data(run.given).take(given.num_data, seed=given.seed), given.part)
    found = compare_estimators(
        vae.model,
        vae.guide,
        data,
        chosen,
        num_particles=given.num_particles[0]
        if len(given.num_particles) == 1
        else given.num_particles,
        num_replicates=given.num_replicates,
        reference_particles=given.reference_particles,
        gradient_reference=given.gradient_bias,
        seed=given.seed,
        progress=sys.stderr.isatty(),
    )
    found.save(out)
    print(f"{found!r}")
    say("saved", " ".join(map(str, [out, *drawn(lambda path: found.plot().savefig(path), out)])))


def compare(given: Any) -> None:
    """Models by their evidence, in pairs."""
    if len(given.runs) < 2:
        raise ValueError(f"A comparison takes two runs or more, found {len(given.runs)}.")
    out = None if given.out is None else _free(given.out, ".nc")
    names = [path.name for path in given.runs]
    labels = names if len(set(names)) == len(names) else [str(path) for path in given.runs]
    check_alike([path for path in given.runs if path.is_dir()])
    chosen = dict(zip(labels, _evidence_of(list(given.runs)), strict=True))
    for label, (file, evidence) in chosen.items():
        say("evidence", f"{label}: {file}, {evidence.method}, {len(evidence):,} data")
    table = {label: evidence for label, (_, evidence) in chosen.items()}
    found = compare_models(table, prob=given.prob, error=given.error)
    print(f"{found!r}")
    if out is not None:
        found.dataset.to_netcdf(out, engine="h5netcdf")
        say("saved", str(out))


def sample(given: Any) -> None:
    """Draws from the model of a run, as a picture or an array."""
    run = Run.open(given.run)
    vae = run.load_vae("cpu")
    image = report.is_image(vae.data_shape)
    out = _free(
        given.out or new_file(run.path, "samples", ".png" if image else ".npy"), ".png", ".npy"
    )
    if out.suffix == ".png" and not image:
        raise ValueError(f"Data of shape {vae.data_shape} make no picture. Give --out FILE.npy.")
    shown = drawing(
        vae,
        given.num,
        mean=given.mean,
        condition=run.metadata.get("condition"),
        splits=lambda: load_data(run.given),
        label=given.label,
        covariates=given.covariates,
        cluster=given.cluster,
    )
    images = seeded(given.seed, shown.draw)
    if out.suffix == ".npy":
        import numpy

        numpy.save(out, images.numpy())
    else:
        low, high = span(images)
        report.image_grid(images, out, columns=shown.columns, low=low, high=high)
    say("saved", str(out))


COMMANDS: dict[str, Callable[[Any], None]] = {
    "Train": train,
    "Evaluate": evaluate,
    "Estimators": estimators,
    "Compare": compare,
    "Sample": sample,
}
"""By the name of the options' class."""


def _free(path: Path, *suffixes: str) -> Path:
    """The path, if it can be written to without loss."""
    if path.suffix not in suffixes:
        raise ValueError(f"--out must end in {' or '.join(suffixes)}, found {path}.")
    if path.exists():
        raise FileExistsError(f"{path} exists. Give another --out: nothing is overwritten.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} to.")
    return path


def _evidence_of(paths: list[Path]) -> list[tuple[Path, Evidence]]:
    """For each run its newest evidence on data that all runs were evaluated on; a file stands for itself."""
    found = []
    for path in paths:
        files = (
            [path]
            if path.is_file()
            else sorted(Run.open(path).path.glob("evidence*.nc"), key=_written)
        )
        if not files:
            raise ValueError(f"The run {path} has no evidence yet. See `pyrovae evaluate {path}`.")
        loaded = [(file, Evidence.load(file)) for file in files]
        found.append(
            {evidence.dataset.attrs["data"]: (file, evidence) for file, evidence in loaded}
        )
    common = [data for data in found[0] if all(data in other for other in found)]
    # Without common data each one's newest is taken, and the comparison says why it refuses them.
    return [choice[common[-1]] if common else [*choice.values()][-1] for choice in found]


def _written(path: Path) -> float:
    return path.stat().st_mtime


def _settled(given: Any) -> tuple[Any, Splits]:
    """The command with every open choice made, and its data."""
    path = Path(given.data).expanduser()
    if path.exists() and given.data not in pv.data.NAMES:
        given = dataclasses.replace(given, data=str(path.resolve()))
    given = settle(given)
    splits = load_data(given)
    if given.binarize == "auto":
        from pyrovae.likelihoods import Bernoulli

        likelihood = chosen_parts(given, "train")["likelihood"].build()
        grey = isinstance(likelihood, Bernoulli) and splits.is_grey
        given = dataclasses.replace(given, binarize="threshold" if grey else "none")
        splits = load_data(given)
    return given, splits


def _initialize(vae: Any, splits: Splits, given: Any) -> None:
    """Start at the training data what is to start there."""
    if given.bias_from_data:
        seeded(given.seed, lambda: vae.initialize_from(splits.train))
    elif getattr(getattr(vae, "prior", None), "starts_at_data", False):
        seeded(given.seed, lambda: vae.prior.initialize_from(splits.train))


def _resumed(given: Any) -> Run:
    run = Run(given.resume, given)
    if not run.checkpoint.is_file():
        done = "it is finished" if run.weights.is_file() else "it has no checkpoint.pt"
        raise ValueError(
            f"Cannot go on with {run.path}: {done}. Start anew with --config {run.config}."
        )
    return run


def _rescue(run: Run, vae: Any, splits: Splits, error: Exception) -> None:
    """After a failure: keep what training gave, or leave no folder behind."""
    from pyrovae.training.fit import NonFiniteLoss

    if isinstance(error, NonFiniteLoss) and run.rows:
        run.save_weights(vae, describe(vae, splits))
        say("saved", f"the last good weights to {run.weights}")
    elif not run.rows:
        run.discard()


def _evidence(vae: Any, splits: Splits, part: str, method: Any, seed: int) -> Evidence:
    scale = 1.0 if vae.likelihood.discrete or splits.levels is None else 1 / (splits.levels - 1)
    evidence = pv.log_marginal(
        vae.model,
        vae.guide,
        arguments(vae, splits, part),
        method=method,
        seed=seed,
        data_scale=scale,
        progress=sys.stderr.isatty(),
    )
    if is_conditional(vae):
        evidence.dataset.attrs["given"] = "y"
    return evidence


def _try_evidence(vae: Any, splits: Splits, part: str, method: Any, seed: int) -> Evidence | None:
    """Evidence, or None with the reason said: a trained point guide is a run, though it has no evidence."""
    try:
        evidence = _evidence(vae, splits, part, method, seed)
    except ValueError as error:
        say("evidence", "none. " + str(error).splitlines()[0])
        return None
    say("evidence", f"{evidence!r}")
    return evidence
