"""What the commands do, once their options are known."""

import dataclasses
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pyrovae as pv
from pyrovae import catalog, report
from pyrovae.cli.folder import Run, build, load_data, new_file
from pyrovae.cli.parse import chosen_parts
from pyrovae.compare import compare_estimators, compare_models
from pyrovae.data import Splits
from pyrovae.evidence import Evidence, bdmc, convergence, where_the_nats_go

__all__ = ["COMMANDS"]


def train(given: Any) -> None:
    """Declare, fit, evaluate, write."""
    given, splits = _settled(given)
    vae = build(given, splits.data_shape)
    if given.bias_from_data:
        vae.initialize_from(splits.train)
    parts = chosen_parts(given, "train")
    estimator, beta, method = (parts[kind].build() for kind in ("estimator", "beta", "method"))
    run = _resumed(given) if given.resume is not None else Run.create(given)
    _say("data", f"{splits!r}".removeprefix("Splits(").removesuffix(")") + _binarized(given))
    _say("model", f"{vae!r}")
    _say("run", str(run.path))
    try:
        history = pv.fit(
            vae.model,
            vae.guide,
            splits.train,
            valid=splits.valid,
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
        _rescue(run, vae, error)
        raise
    run.save_weights(vae)
    run.checkpoint.unlink(missing_ok=True)
    seconds = sum(row["seconds"] for row in run.rows)
    _say("trained", f"{len(history)} epochs in {seconds:.1f} s, weights of epoch {history.best_epoch} kept")
    vae.eval()
    evidence = _try_evidence(vae, splits, "test", method, given.seed)
    if evidence is not None:
        evidence.save(run.evidence)
    figures = _figures(run, vae, splits, evidence, history.best_epoch)
    _write_page(run, vae, splits, evidence, figures, f"{history!r}")
    _say("report", str(run.path / "report.html"))
    if evidence is not None:
        print(headline(evidence, splits.name, "test"))


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
    saved = [out, *_drawn(lambda path: report.evidence_figure(evidence, path), out)]
    if given.bdmc is not None:
        progress = sys.stderr.isatty()
        sandwich = bdmc(
            vae.model, vae.guide, num_data=given.bdmc, method=method, seed=given.seed, progress=progress
        )
        print(sandwich)
        beside = out.with_name(f"{out.stem}-sandwich.png")
        saved += _drawn(lambda path: report.sandwich_figure(sandwich, path), beside)
    data = getattr(splits, given.part)
    if given.nats:
        print(where_the_nats_go(vae.model, vae.guide, data, method=method, seed=given.seed))
    if given.convergence:
        rising = convergence(vae.model, vae.guide, data, num_particles=given.convergence, seed=given.seed)
        print(rising)
        beside = out.with_name(f"{out.stem}-convergence.png")
        saved += _drawn(lambda path: report.axes_figure(rising.plot, path), beside)
    _say("saved", " ".join(map(str, saved)))
    print(headline(evidence, splits.name, given.part))


def estimators(given: Any) -> None:
    """ELBO estimators at the weights of a run."""
    run = Run.open(given.run)
    out = _free(given.out or new_file(run.path, "estimators", ".nc"), ".nc")
    chosen = {name: catalog.find("estimator", name).build() for name in given.names}
    vae = run.load_vae(given.device)
    data = getattr(load_data(run.given).take(given.num_data, seed=given.seed), given.part)
    found = compare_estimators(
        vae.model,
        vae.guide,
        data,
        chosen,
        num_particles=given.num_particles[0] if len(given.num_particles) == 1 else given.num_particles,
        num_replicates=given.num_replicates,
        reference_particles=given.reference_particles,
        gradient_reference=given.gradient_bias,
        seed=given.seed,
        progress=sys.stderr.isatty(),
    )
    found.save(out)
    print(f"{found!r}")
    _say("saved", " ".join(map(str, [out, *_drawn(lambda path: found.plot().savefig(path), out)])))


def compare(given: Any) -> None:
    """Models by their evidence, in pairs."""
    if len(given.runs) < 2:
        raise ValueError(f"A comparison takes two runs or more, found {len(given.runs)}.")
    out = None if given.out is None else _free(given.out, ".nc")
    names = [path.name for path in given.runs]
    labels = names if len(set(names)) == len(names) else [str(path) for path in given.runs]
    chosen = dict(zip(labels, _evidence_of(list(given.runs)), strict=True))
    for label, (file, evidence) in chosen.items():
        _say("evidence", f"{label}: {file}, {evidence.method}, {len(evidence):,} data")
    table = {label: evidence for label, (_, evidence) in chosen.items()}
    found = compare_models(table, prob=given.prob, error=given.error)
    print(f"{found!r}")
    if out is not None:
        found.dataset.to_netcdf(out, engine="h5netcdf")
        _say("saved", str(out))


def sample(given: Any) -> None:
    """Draws from the model of a run, as a picture or an array."""
    run = Run.open(given.run)
    vae = run.load_vae("cpu")
    image = report.is_image(vae.data_shape)
    out = _free(given.out or new_file(run.path, "samples", ".png" if image else ".npy"), ".png", ".npy")
    if out.suffix == ".png" and not image:
        raise ValueError(f"Data of shape {vae.data_shape} make no picture. Give --out FILE.npy.")
    drawn = _seeded(given.seed, lambda: vae.sample(given.num, mean=given.mean))
    if out.suffix == ".npy":
        import numpy

        numpy.save(out, drawn.numpy())
    else:
        low, high = _span(drawn)
        report.image_grid(drawn, out, low=low, high=high)
    _say("saved", str(out))


COMMANDS: dict[str, Callable[[Any], None]] = {
    "Train": train,
    "Evaluate": evaluate,
    "Estimators": estimators,
    "Compare": compare,
    "Sample": sample,
}
"""By the name of the options' class."""


def headline(evidence: Evidence, name: str, part: str) -> str:
    """The result in a line."""
    which = "held-out" if part != "train" else "training"
    low, high = evidence.interval()
    return (
        f"{which} log-likelihood: {evidence.mean():.3f} ± {evidence.monte_carlo_error():.3f} (Monte Carlo) "
        f"± {evidence.test_set_error():.3f} (test set) nats per datum; "
        f"{len(evidence):,} {part} data of {name}, 95 % Monte Carlo interval {low:.3f} to {high:.3f}"
    )


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
        files = [path] if path.is_file() else sorted(Run.open(path).path.glob("evidence*.nc"), key=_written)
        if not files:
            raise ValueError(f"The run {path} has no evidence yet. See `pyrovae evaluate {path}`.")
        loaded = [(file, Evidence.load(file)) for file in files]
        found.append({evidence.dataset.attrs["data"]: (file, evidence) for file, evidence in loaded})
    common = [data for data in found[0] if all(data in other for other in found)]
    # Without common data each one's newest is taken, and the comparison says why it refuses them.
    return [choice[common[-1]] if common else [*choice.values()][-1] for choice in found]


def _written(path: Path) -> float:
    return path.stat().st_mtime


def _drawn(draw: Callable[[Path], Any], beside: Path) -> list[Path]:
    """A figure beside a file, if there is matplotlib, and no other figure of that name."""
    path = beside.with_suffix(".png")
    if path.exists():
        return []
    try:
        draw(path)
    except ImportError:
        _say("figures", f"no {path.name}: it needs matplotlib (pip install 'pyrovae[plots]')")
        return []
    return [path]


def _settled(given: Any) -> tuple[Any, Splits]:
    """The command with every open choice made, and its data."""
    path = Path(given.data).expanduser()
    if path.exists() and given.data not in pv.data.NAMES:
        given = dataclasses.replace(given, data=str(path.resolve()))
    splits = load_data(given)
    if given.binarize == "auto":
        from pyrovae.likelihoods import Bernoulli

        likelihood = chosen_parts(given, "train")["likelihood"].build()
        grey = isinstance(likelihood, Bernoulli) and splits.is_grey
        given = dataclasses.replace(given, binarize="threshold" if grey else "none")
        splits = load_data(given)
    return given, splits


def _binarized(given: Any) -> str:
    how = {
        "dynamic": "; binarised anew for each training batch, once for validation and test",
        "stochastic": "; binarised once with the grey values as probabilities",
        "threshold": "; binarised at one half",
    }
    return how.get(given.binarize, "")


def _resumed(given: Any) -> Run:
    run = Run(given.resume, given)
    if not run.checkpoint.is_file():
        done = "it is finished" if run.weights.is_file() else "it has no checkpoint.pt"
        raise ValueError(f"Cannot go on with {run.path}: {done}. Start anew with --config {run.config}.")
    return run


def _rescue(run: Run, vae: Any, error: Exception) -> None:
    """After a failure: keep what training gave, or leave no folder behind."""
    from pyrovae.training import NonFiniteLoss

    if isinstance(error, NonFiniteLoss) and run.rows:
        run.save_weights(vae)
        _say("saved", f"the last good weights to {run.weights}")
    elif not run.rows:
        run.discard()


def _evidence(vae: Any, splits: Splits, part: str, method: Any, seed: int) -> Evidence:
    scale = 1.0 if vae.likelihood.discrete or splits.levels is None else 1 / (splits.levels - 1)
    return pv.log_marginal(
        vae.model,
        vae.guide,
        getattr(splits, part),
        method=method,
        seed=seed,
        data_scale=scale,
        progress=sys.stderr.isatty(),
    )


def _try_evidence(vae: Any, splits: Splits, part: str, method: Any, seed: int) -> Evidence | None:
    """Evidence, or None with the reason said: a trained point guide is a run, though it has no evidence."""
    try:
        evidence = _evidence(vae, splits, part, method, seed)
    except ValueError as error:
        _say("evidence", "none. " + str(error).splitlines()[0])
        return None
    _say("evidence", f"{evidence!r}")
    return evidence


def _figures(
    run: Run, vae: Any, splits: Splits, evidence: Evidence | None, best_epoch: int | None
) -> list[tuple[str, Path]]:
    figures = []
    rows = run.rows
    for path in _drawn(
        lambda p: report.learning_curve(rows, p, best_epoch=best_epoch), run.path / "learning_curve.png"
    ):
        figures.append(("Learning curve", path))
    if evidence is not None:
        for path in _drawn(lambda p: report.evidence_figure(evidence, p), run.evidence):
            figures.append(("log p(x) of each test datum, and where its estimate is not to be trusted", path))
    if report.is_image(vae.data_shape):
        device = next(vae.parameters()).device
        low, high = _span(splits.train)
        shown = splits.test[:40].to(device)
        drawn, seen = _seeded(run.given.seed, lambda: (vae.sample(64, mean=True), vae.reconstruct(shown)))
        report.image_grid(drawn, run.path / "samples.png", low=low, high=high)
        report.reconstruction_grid(shown, seen, run.path / "reconstructions.png", low=low, high=high)
        figures.append(("Samples: E[x | z] for z drawn from the prior", run.path / "samples.png"))
        figures.append(
            (
                "Test data (upper rows) and their reconstructions (lower rows)",
                run.path / "reconstructions.png",
            )
        )
    return figures


def _write_page(
    run: Run,
    vae: Any,
    splits: Splits,
    evidence: Evidence | None,
    figures: list[tuple[str, Path]],
    history: str,
) -> None:
    where = next(vae.parameters()).device
    versions = (
        f"pyrovae {pv.__version__}, torch {torch.__version__}, Python {platform.python_version()}, {where}"
    )
    again = f"pyrovae train --config {run.config}\npyrovae evaluate {run.path}\npyrovae sample {run.path}"
    report.page(
        run.path / "report.html",
        title=f"{run.path.name}: VAE on {splits.name}",
        headline=headline(evidence, splits.name, "test")
        if evidence is not None
        else "no held-out log-likelihood",
        figures=figures,
        sections=[
            *([("Evidence", repr(evidence))] if evidence is not None else []),
            ("Model", repr(vae)),
            ("Data", repr(splits) + _binarized(run.given)),
            ("Training", history),
            ("Configuration", run.config.read_text(encoding="utf-8")),
            ("Again", again),
            ("Made with", versions),
        ],
    )


def _span(x: Tensor) -> tuple[float, float]:
    """What to show as black and white: [0, 1] where data lie in it, else their range."""
    low, high = float(x.min()), float(x.max())
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)


def _seeded(seed: int, draw: Callable[[], Any]) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return draw()


def _say(what: str, text: str) -> None:
    head, *rest = text.splitlines()
    print("\n".join([f"{what:<10}{head}", *(f"{'':<10}{line}" for line in rest)]), flush=True)
