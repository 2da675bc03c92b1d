"""The commands. The parameters of a function are its options; its docstring is their help."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pyrovae as pv
from pyrovae import evidence, runs
from pyrovae.estimators import Estimator
from pyrovae.evidence import Evidence
from pyrovae.evidence.methods.base import Method
from pyrovae.runs import Run, figures
from pyrovae.runs.conditions import arguments, drawing, is_conditional
from pyrovae.runs.programs import programs
from pyrovae.runs.run import new_file
from pyrovae.runs.terminal import attempt, headline, say, seeded

__all__ = ["compare", "estimators", "evaluate", "sample"]

Part = Literal["test", "valid", "train"]
_IMPORTANCE: Any = {"class_path": "pyrovae.ImportanceSampling"}
_PARTICLES: Any = [1, 4, 16]
_NONE: Any = []


def evaluate(
    run: Path,
    part: Part = "test",
    method: Method = _IMPORTANCE,
    limit: int | None = None,
    seed: int = 0,
    device: str | None = None,
    out: Path | None = None,
    bdmc: int | None = None,
    nats: bool = False,
    convergence: list[int] = _NONE,
) -> None:
    """Estimate the held-out log-likelihood of a run, and save it there.

    Args:
        run: A folder that pyrovae train wrote.
        part: Which data.
        method: How to estimate.
        limit: At most this many of the data, at random.
        seed: Seed of all draws.
        device: cpu, cuda, ...; default CUDA where there is any.
        out: The .nc file to save the evidence to; default the next free RUN/evidence-N.nc.
        bdmc: Also bound the error of the method (AIS), on so many data drawn from the model.
        nats: Also show where the nats go: reconstruction, KL and its parts, inference gap.
        convergence: Also show how the importance estimate rises over these numbers of particles.
    """
    opened = Run.open(run)
    out = _free(out or new_file(run, "evidence", ".nc"), ".nc")
    splits = runs.load_data(opened.config)
    if limit is not None:
        splits = splits.take(limit, seed=seed)
    vae: Any = opened.load_vae(device)
    found = runs.evaluate(vae, splits, part, method, seed)
    found.save(out)
    print(f"{found!r}")
    saved = [out, *_figure(out, lambda path: figures.evidence_figure(found, path))]
    data = arguments(vae, splits, part)
    if bdmc is not None:
        # Data are drawn anew, the labels that they are drawn for are not.
        settings = {
            "num_data": bdmc,
            "method": method,
            "seed": seed,
            "progress": sys.stderr.isatty(),
        }
        given = data if is_conditional(vae) else None
        sandwich = evidence.bdmc(*programs(vae), data=given, **settings)
        print(sandwich)
        saved += _figure(out, lambda path: figures.sandwich_figure(sandwich, path), "-sandwich")
    if nats:
        print(evidence.where_the_nats_go(*programs(vae), data, method=method, seed=seed))
    if convergence:
        rising = evidence.convergence(
            *programs(vae), data, num_particles=tuple(convergence), seed=seed
        )
        print(rising)
        saved += _figure(out, lambda path: figures.axes_figure(rising.plot, path), "-convergence")
    say("saved", " ".join(map(str, saved)))
    say("", headline(found, splits.name, part))


def estimators(
    run: Path,
    names: list[Estimator] = _NONE,
    num_particles: list[int] = _PARTICLES,
    num_data: int = 20,
    num_replicates: int = 100,
    reference_particles: int = 5000,
    gradient_bias: bool = True,
    part: Part = "test",
    seed: int = 0,
    device: str | None = None,
    out: Path | None = None,
) -> None:
    """Compare ELBO estimators at the weights of a run: bounds, gradients, cost.

    Args:
        run: A folder that pyrovae train wrote.
        names: Which estimators, each with its own defaults; default ELBO STL IWAE DReG.
        num_particles: Draws for each datum: one number, or several to sweep.
        num_data: Size of the batch, drawn at random.
        num_replicates: Runs of each estimator.
        reference_particles: Particles of the references for log p(x) and for the model's gradient.
        gradient_bias: Test gradients for bias, which takes most of the time.
        part: Which data.
        seed: Seed of all draws.
        device: cpu, cuda, ...; default CUDA where there is any.
        out: The .nc file to save the comparison to, with a figure beside it; default the next free
            RUN/estimators-N.nc.
    """
    opened = Run.open(run)
    out = _free(out or new_file(run, "estimators", ".nc"), ".nc")
    chosen = names or [getattr(pv.estimators, n)() for n in ("ELBO", "STL", "IWAE", "DReG")]
    vae: Any = opened.load_vae(device)
    splits = runs.load_data(opened.config).take(num_data, seed=seed)
    found = pv.compare_estimators(
        *programs(vae),
        arguments(vae, splits, part),
        {type(estimator).__name__: estimator for estimator in chosen},
        num_particles=num_particles[0] if len(num_particles) == 1 else num_particles,
        num_replicates=num_replicates,
        reference_particles=reference_particles,
        gradient_reference=gradient_bias,
        seed=seed,
        progress=sys.stderr.isatty(),
    )
    found.save(out)
    print(f"{found!r}")
    saved = [out, *_figure(out, lambda path: found.plot().savefig(path))]
    say("saved", " ".join(map(str, saved)))


def compare(
    runs: list[Path],
    prob: float = 0.95,
    error: Literal["both", "monte_carlo", "test_set"] = "both",
    allow_unequal_effort: bool = False,
    out: Path | None = None,
) -> None:
    """Compare models by their evidence on the same data, in pairs.

    Args:
        runs: Two or more run folders, whose newest evidence on the same data is taken, or files.
        prob: How often an interval is to hold the true difference.
        error: Which errors of a difference count.
        allow_unequal_effort: Compare estimates by different methods or settings, too.
        out: The .nc file to save the table to; default nowhere.
    """
    if len(runs) < 2:
        raise ValueError(f"A comparison takes two runs or more, found {len(runs)}.")
    places = [path.resolve() for path in runs]
    for i, place in enumerate(places):
        if place in places[:i]:
            raise ValueError(f"{runs[i]} is given twice. Give each run or file once.")
    if out is not None:
        _free(out, ".nc")
    names = [path.name for path in runs]
    labels = names if len(set(names)) == len(names) else [str(path) for path in runs]
    _check_alike([path for path in runs if path.is_dir()])
    chosen = dict(zip(labels, _evidence_of(runs), strict=True))
    for label, (file, found) in chosen.items():
        say("evidence", f"{label}: {file}, {found.method}, {len(found):,} data")
    settings: dict[str, Any] = {"prob": prob, "error": error}
    if allow_unequal_effort:
        settings["allow_unequal_effort"] = True
    table = pv.compare_models({label: found for label, (_, found) in chosen.items()}, **settings)
    print(f"{table!r}")
    if out is not None:
        table.dataset.to_netcdf(out, engine="h5netcdf")
        say("saved", str(out))


def sample(
    run: Path,
    num: int = 64,
    mean: bool = False,
    label: list[int] = _NONE,
    covariates: list[float] = _NONE,
    cluster: int | None = None,
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Draw from the model of a run, as a picture or an array.

    Args:
        run: A folder that pyrovae train wrote.
        num: How many.
        mean: Show E[x | z] of each drawn z instead of a draw of x.
        label: Of a conditional model: the labels to draw for, in turn; default all.
        covariates: Of a conditional model that was trained on covariates: those to draw for;
            default those of test data.
        cluster: Of a clustering model: the cluster to draw from; default all.
        seed: Seed of all draws.
        out: A new .png (a grid) or .npy (an array); default the next free RUN/samples-N.png or
            .npy.
    """
    opened = Run.open(run)
    vae: Any = opened.load_vae("cpu")
    image = figures.is_image(vae.data_shape)
    out = _free(out or new_file(run, "samples", ".png" if image else ".npy"), ".png", ".npy")
    if out.suffix == ".png" and not image:
        raise ValueError(f"Data of shape {vae.data_shape} make no picture. Give --out FILE.npy.")
    shown = drawing(
        vae,
        num,
        mean=mean,
        condition=opened.metadata.get("condition"),
        splits=lambda: runs.load_data(opened.config),
        label=label,
        covariates=covariates,
        cluster=cluster,
    )
    images = seeded(seed, shown.draw)
    if out.suffix == ".npy":
        import numpy

        numpy.save(out, images.numpy())
    else:
        low, high = figures.span(images)
        figures.image_grid(images, out, columns=shown.columns, low=low, high=high)
    say("saved", str(out))


def _free(path: Path, *suffixes: str) -> Path:
    """The path, if it can be written to without loss."""
    if path.suffix not in suffixes:
        raise ValueError(f"--out must end in {' or '.join(suffixes)}, found {path}.")
    if path.exists():
        raise FileExistsError(f"{path} exists. Give another --out: nothing is overwritten.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} to.")
    return path


def _figure(beside: Path, draw: Callable[[Path], Any], suffix: str = "") -> list[Path]:
    """A figure beside a file, unless there is one of that name or it cannot be drawn."""
    path = beside.with_name(f"{beside.stem}{suffix}.png")
    return [path] if not path.exists() and attempt(path.name, lambda: draw(path)) else []


def _check_alike(paths: list[Path]) -> None:
    """Raise a ValueError if some runs give log p(x | y) and others log p(x)."""
    given = [p for p in paths if "condition" in Run.open(p).metadata]
    plain = [p for p in paths if p not in given]
    if given and plain:
        raise ValueError(
            f"{given[0]} gives log p(x | y), but {plain[0]} log p(x): their difference is also "
            "what y tells of x. Compare runs that are given the same."
        )


def _evidence_of(paths: list[Path]) -> list[tuple[Path, Evidence]]:
    """For each run its newest evidence on data that all were evaluated on; a file is itself."""
    found = []
    for path in paths:
        files = [path]
        if not path.is_file():
            every = Run.open(path).path.glob("evidence*.nc")
            files = sorted(every, key=lambda file: file.stat().st_mtime)
        if not files:
            raise ValueError(f"The run {path} has no evidence yet. See `pyrovae evaluate {path}`.")
        loaded = [(file, Evidence.load(file)) for file in files]
        found.append({known.dataset.attrs["data"]: (file, known) for file, known in loaded})
    common = [data for data in found[0] if all(data in other for other in found)]
    # Without common data the newest of each is taken, and the comparison says why it refuses them.
    return [choice[common[-1]] if common else [*choice.values()][-1] for choice in found]
