"""What the papers' scripts share: data, training and evidence that go on where they stopped, and
the line that is recorded.
"""

import argparse
import hashlib
import json
import math
import os
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

import pyrovae as pv

HERE = Path(__file__).parent
# Options that do not change what is trained.
_EVALUATION = {"script", "out", "results", "threads", "tested", "annealed", "temperatures"}


def load(name: str) -> pv.data.Splits:
    """A data set as the papers cut it, from the folder ``$PYROVAE_DATA``.

    - ``static``: MNIST, drawn black and white once by Salakhutdinov and Murray (2008).
    - ``dynamic``: MNIST with 10,000 of the training images for validation. Training images are
      drawn black and white anew in each batch, validation and test images once.
    - ``caltech``: Caltech 101 silhouettes, 1 - x of the authors' file.
    """
    folder = Path(os.environ.get("PYROVAE_DATA") or Path.home() / ".cache" / "pyrovae")
    if name == "static":
        return pv.data.load(folder / "mnist_static_binarized.npz")
    if name == "dynamic":
        return pv.data.load("mnist").binarize("dynamic")
    given = pv.data.load(folder / "caltech101_silhouettes_28.npz")
    return replace(given, train=1 - given.train, valid=1 - given.valid, test=1 - given.test)


def options(description: str | None, epochs: int, annealed: int = 0) -> argparse.ArgumentParser:
    """The options that every script has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="of initial weights and training")
    parser.add_argument("--epochs", type=int, help=f"at most; default {epochs:,}")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tf32", action="store_true", help="let a GPU round products in training")
    parser.add_argument("--quick", action="store_true", help="minutes, for a weaker target")
    parser.add_argument("--tested", type=int, help="number of test data; default, all")
    parser.add_argument(
        "--annealed", type=int, default=annealed, help="number of test data for AIS"
    )
    parser.add_argument("--temperatures", type=int, default=200, help="of AIS")
    parser.add_argument("--limit", type=int, help="use at most so many data of each part")
    parser.add_argument("--out", type=Path, help="folder of the run; default below runs/papers")
    parser.add_argument(
        "--results", type=Path, help="file to append the line to; default that of the paper"
    )
    return parser


def prepare(arguments: argparse.Namespace, name: str) -> Path:
    """Set the threads, and make the folder of the run.

    Raises:
        SystemExit: If the folder holds a run that was trained with other options.
    """
    torch.set_num_threads(arguments.threads)
    torch.set_float32_matmul_precision("high" if arguments.tf32 else "highest")
    folder = arguments.out or Path("runs/papers") / (name + "-quick" * arguments.quick)
    folder.mkdir(parents=True, exist_ok=True)
    trained = json.dumps({k: v for k, v in vars(arguments).items() if k not in _EVALUATION})
    settings = folder / "settings.json"
    if settings.exists() and settings.read_text() != trained:
        raise SystemExit(
            f"{folder} holds a run with {settings.read_text()}, and the options are {trained}. "
            "Give another folder: --out."
        )
    settings.write_text(trained)
    return folder


def train(
    vae: Any, splits: pv.data.Splits, folder: Path, *, select: bool = True, **settings: Any
) -> pv.History:
    """Fit; goes on where an earlier call in this folder was stopped.

    With ``select``, the weights of the best validation bound are kept, else the last.
    """
    history = vae.fit(
        splits.train, valid=splits.valid if select else None, transform=splits.transform,
        checkpoint=folder / "checkpoint.pt", log=folder / "epochs.jsonl", resume=True, **settings,
    )  # fmt: skip
    torch.set_float32_matmul_precision("highest")  # for what follows
    vae.eval()
    return history


def finish(
    arguments: argparse.Namespace,
    vae: Any,
    splits: pv.data.Splits,
    folder: Path,
    history: pv.History,
    **labels: Any,
) -> dict[str, Any]:
    """Evidence of the test data, AIS on some of them, and the line of the run.

    A quick run takes 1,000 data and particles and a short AIS.
    """
    quick = arguments.quick
    particles = 1_000 if quick else 5_000
    tested = arguments.tested or (1_000 if quick else len(splits.test))
    evidence = evaluate(vae, splits.take(tested).test, folder, pv.ImportanceSampling(particles))
    figures = {**labels, **evidence, "num_particles": particles}
    annealed = 10 if quick and arguments.annealed else arguments.annealed
    if annealed:
        temperatures = 20 if quick else arguments.temperatures
        method = pv.AIS(temperatures, 16, start="guide", precision="program")
        figures["ais"] = anneal(
            vae, splits.test, folder, method=method, num_data=annealed, particles=particles
        )
    return record(arguments, history, **figures)


def evaluate(vae: Any, data: Tensor, folder: Path, method: Any, *, seed: int = 0) -> dict[str, Any]:
    """Held-out evidence of the weights as they are; what is finished is kept in the folder.

    Returns:
        Mean NLL in nats per datum, its Monte Carlo and test-set errors, and the share of k > 0.7.
    """
    found = vae.log_marginal(data, method=method, seed=seed, parts=folder / "parts", progress=True)
    return {
        "num_data": len(found),
        "nll": -found.mean(),
        "monte_carlo_error": found.monte_carlo_error(),
        "test_set_error": found.test_set_error(),
        "share_k_above_0.7": float((found.pareto_k.values > 0.7).mean()),
    }


def anneal(vae: Any, test: Tensor, folder: Path, *, method: pv.AIS, num_data: int, particles: int):
    """AIS on some test data beside importance sampling of the same, and the gap on simulated data.

    Args:
        vae: The trained model.
        test: Test data, of which ``num_data`` are chosen at random, the same for every model.
        folder: Of the run.
        method: How to anneal.
        num_data: Number of test data.
        particles: Of importance sampling.
    """
    chosen = test[torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:num_data]]
    annealed = evaluate(vae, chosen, folder, method)
    beside = evaluate(vae, chosen, folder, pv.ImportanceSampling(particles))
    gap = sandwiched(vae, folder, method, min(100, num_data))
    return {**annealed, "importance_nll": beside["nll"], **gap, "settings": method.settings()}


def sandwiched(vae: Any, folder: Path, method: Any, num_data: int) -> dict[str, float]:
    """The gap between the two bounds of a method on data simulated from the model, kept in the
    folder.
    """
    path = folder / f"gap-{_digest(vae, num_data, repr(method.settings()))}.json"
    if not path.exists():
        sandwich = pv.bdmc(vae.model, vae.guide, num_data=num_data, method=method)
        gap = {"gap": float(sandwich.gap.mean()), "gap_error": sandwich.gap_error()}
        path.write_text(json.dumps(gap))
    return json.loads(path.read_text())


def record(arguments: argparse.Namespace, history: pv.History, **figures: Any) -> dict[str, Any]:
    """Append one JSON line about a run to the file of its paper, and return what it says.

    A quick run writes only where ``--results`` names a file.
    """
    script = Path(arguments.script)
    chosen = {
        name: value for name, value in vars(arguments).items()
        if name not in ("script", "out", "results") and value is not None and value is not False
    }  # fmt: skip
    words = [f"--{name}" + f" {value}" * (value is not True) for name, value in chosen.items()]
    bounds = history["valid_bound"]
    line = {
        "paper": script.stem,
        "command": " ".join(["python", f"examples/papers/{script.name}", *words]),
        **chosen,
        "epochs": len(history),
        **({} if history.best_epoch is None else {"best_epoch": history.best_epoch}),
        **({"valid_bound": max(bounds)} if math.isfinite(bounds[0]) else {}),
        "seconds": round(float(history["seconds"].sum()), 1),
        **figures,
        "versions": {
            "python": platform.python_version(),
            **{module.__name__: module.__version__ for module in (pv, torch, pyro)},
        },
        "hardware": hardware(),
    }
    text = json.dumps(line, default=float)
    path = arguments.results
    if path is None and not arguments.quick and arguments.limit is None:
        path = HERE / "results" / f"{script.stem}.jsonl"
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(text + "\n")
    print(text)
    return json.loads(text)


def hardware() -> str:
    """The GPU, if there is one; the processor, its vector instructions and the number of cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    flags = torch.backends.cpu.get_cpu_capability()
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return f"{gpu}{names[0] if names else platform.processor()}, {flags}, {os.cpu_count()} cores"


def _digest(vae: Any, *settings: Any) -> str:
    """A few letters that change with the weights and the settings."""
    digest = hashlib.sha256(repr(settings).encode())
    for tensor in vae.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
