"""The commands. The parameters of a function are its options; its docstring is their help."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pyrovae as pv
from pyrovae import evidence, files, runs
from pyrovae.estimators import Estimator
from pyrovae.evidence.methods.base import Method
from pyrovae.evidence.parts import remove_parts
from pyrovae.runs import Run, figures
from pyrovae.runs.conditions import arguments, drawing, is_conditional
from pyrovae.runs.draws import kinds_of, save_draws
from pyrovae.runs.evidence_files import check_alike, common_evidence
from pyrovae.runs.new_files import check_new, reserved
from pyrovae.runs.terminal import attempt, headline, say, seeded, show
from pyrovae.runs.together import follows

__all__ = ["compare", "estimators", "evaluate", "sample", "sweep"]

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
    trust: bool = False,
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
        trust: Use a run that names classes that are not pyrovae's own, which runs their code.
    """
    opened = Run.open(run, trust=trust)
    if bdmc is not None:
        _check_bdmc(bdmc, opened)
    with reserved(out, run / "evidence.nc", ".nc", start=2) as file:
        splits = runs.load_data(opened.config)
        opened.check_data(splits)
        if limit is not None:
            splits = splits.take(limit, seed=seed)
        vae: Any = opened.load_vae(device)
        parts = file.with_suffix(".parts")
        found = runs.evaluate(vae, splits, part, method, seed, parts)
        if follows():
            return
        found.save(file)
        remove_parts(parts)
        show(found)
        saved = [file, *_figure(file, lambda figure: figures.evidence_figure(found, figure))]
        (model, guide), data = vae.programs, vae.read(arguments(vae, splits, part))
        if bdmc is not None:
            sandwich = _sandwich(vae, data, num_data=bdmc, method=method, seed=seed)
            saved += _figure(file, sandwich.plot, "-sandwich")
        if nats:
            split = evidence.where_the_nats_go(model, guide, data, method=method, seed=seed)
            show(split)
            saved += _figure(file, split.plot, "-nats")
        if convergence:
            counts = tuple(convergence)
            rising = evidence.convergence(model, guide, data, num_particles=counts, seed=seed)
            show(rising)
            saved += _figure(file, rising.plot, "-convergence")
    say("saved", " ".join(map(str, saved)))
    say("", headline(found, splits.name, part))


def _check_bdmc(num_data: int, run: Run) -> None:
    _check_count("bdmc", num_data)
    if run.config.dequantize == "variational":
        raise ValueError(
            "--bdmc takes data drawn from the model, and a model with variational dequantisation "
            "draws no grey levels. Leave it out."
        )


def _check_count(option: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"--{option} must be at least 1, found {value}.")


def _sandwich(vae: Any, data: Any, **settings: Any) -> evidence.Sandwich:
    """The error of a method on data drawn anew; the labels that they are drawn for are not."""
    given = data if is_conditional(vae) else None
    found = evidence.bdmc(*vae.programs, data=given, progress=sys.stderr.isatty(), **settings)
    show(found)
    return found


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
    trust: bool = False,
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
        trust: Use a run that names classes that are not pyrovae's own, which runs their code.
    """
    _check_count("num_data", num_data)
    opened = Run.open(run, trust=trust)
    with reserved(out, run / "estimators.nc", ".nc") as file:
        chosen = names or [getattr(pv.estimators, n)() for n in ("ELBO", "STL", "IWAE", "DReG")]
        vae: Any = opened.load_vae(device)
        whole = runs.load_data(opened.config)
        opened.check_data(whole)
        splits = whole.take(num_data, seed=seed)
        model, guide = vae.programs
        found = pv.compare_estimators(
            model,
            guide,
            vae.read(arguments(vae, splits, part)),
            {type(estimator).__name__: estimator for estimator in chosen},
            num_particles=num_particles[0] if len(num_particles) == 1 else num_particles,
            num_replicates=num_replicates,
            reference_particles=reference_particles,
            gradient_reference=gradient_bias,
            seed=seed,
            progress=sys.stderr.isatty(),
        )
        found.save(file)
        show(found)
        saved = [file, *_figure(file, found.plot)]
    say("saved", " ".join(map(str, saved)))


def compare(
    runs: list[Path],
    prob: float = 0.95,
    error: Literal["both", "monte_carlo", "test_set"] = "both",
    allow_unequal_effort: bool = False,
    out: Path | None = None,
    trust: bool = False,
) -> None:
    """Compare models by their evidence on the same data, in pairs.

    Args:
        runs: Two or more run folders, whose newest evidence on the same data is taken, or files.
        prob: How often an interval is to hold the true difference.
        error: Which errors of a difference count.
        allow_unequal_effort: Compare estimates by different methods or settings, too.
        out: The .nc file to save the table to; default nowhere.
        trust: Use runs that name classes that are not pyrovae's own, which runs their code.
    """
    if len(runs) < 2:
        raise ValueError(f"A comparison takes two runs or more, found {len(runs)}.")
    places = [path.resolve() for path in runs]
    for i, place in enumerate(places):
        if place in places[:i]:
            raise ValueError(f"{runs[i]} is given twice. Give each run or file once.")
    if out is not None:
        check_new(out, ".nc")
    names = [path.name for path in runs]
    labels = names if len(set(names)) == len(names) else [str(path) for path in runs]
    opened = {path: Run.open(path, trust=trust) for path in runs if path.is_dir()}
    check_alike([*opened.values()])
    chosen = dict(zip(labels, common_evidence(runs, opened), strict=True))
    for label, (file, found) in chosen.items():
        say("evidence", f"{label}: {file}, {found.method}, {len(found):,} data")
    table = pv.compare_models(
        {label: found for label, (_, found) in chosen.items()},
        prob=prob,
        error=error,
        allow_unequal_effort=allow_unequal_effort,
    )
    show(table)
    if out is not None:
        files.write(out, bytes(table.dataset.to_netcdf(engine="h5netcdf")))
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
    trust: bool = False,
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
            .npy. Of a table whose columns were inferred, a .csv.
        trust: Use a run that names classes that are not pyrovae's own, which runs their code.
    """
    opened = Run.open(run, trust=trust)
    vae: Any = opened.load_vae("cpu")
    kinds = kinds_of(vae)
    if out is not None and out.suffix == ".png" and ".png" not in kinds:
        raise ValueError(
            f"Data of shape {vae.data_shape} make no picture. Give --out FILE{kinds[0]}."
        )
    with reserved(out, run / f"samples{kinds[0]}", *kinds) as file:
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
        save_draws(seeded(seed, shown.draw), file, columns=shown.columns)
    say("saved", str(file))


def sweep(
    file: Path,
    out: Path | None = None,
    jobs: int = 1,
    storage: str | None = None,
    retry_failed: bool = False,
    trust: bool = False,
) -> None:
    """Train many models with several seeds each, and rank them.

    Args:
        file: A YAML file; an option of pyrovae train with a list of values is an axis, and seed is
            the number of training seeds.
        out: The folder of the sweep; default sweeps/FILE. The same command goes on with it.
        jobs: Processes that train here, which share the threads of this machine.
        storage: The URL of a database for Optuna's study; default a journal file in the folder.
        retry_failed: Train runs again that failed.
        trust: Use a file that names classes that are not pyrovae's own, which runs their code.
    """
    found = pv.sweep(file, out, jobs=jobs, storage=storage, retry_failed=retry_failed, trust=trust)
    print()
    show(found)
    say("saved", f"{found.folder / 'sweep.csv'} {found.folder / 'sweep.html'}")


def _figure(beside: Path, draw: Callable[[Any], Any], suffix: str = "") -> list[Path]:
    """A figure beside a file, unless there is one of that name or it cannot be drawn."""
    path = beside.with_name(f"{beside.stem}{suffix}.png")
    made = not path.exists() and attempt(path.name, lambda: files.write(path, figures.png(draw)))
    return [path] if made else []
