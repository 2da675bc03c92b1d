r"""Total seconds of a training run of so many steps, everything counted that happens after imports.

    python tests/benchmarks/total_time.py [--case mlp-128] [--numpyro PYTHON] \
        [--steps 100 300 1000 3000 10000 100000]

Each figure is from a process of its own, from the first call to the last step: capture and
compilation count. "Cold" has an empty cache of compiled graphs; "warm" has what the cold run left
there. All contenders train the networks of training_step.py on the same data in memory. The longest
runs of the slow contenders take minutes: choose by --steps and --contenders.
"""

import argparse
import logging
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
OURS = ("pyrovae, cold", "pyrovae, warm")
THEIRS = ("torch", "torch.compile, cold", "torch.compile, warm", "Pyro SVI")


def pyrovae_run(case, vae, data, steps: int) -> None:
    """As a user calls it; epochs of whole batches that make up the steps exactly."""
    import pyrovae as pv
    from pyrovae import estimators

    estimator = estimators.IWAE(case.particles) if case.particles > 1 else estimators.ELBO()
    most = len(data) // case.batch
    batches = max(n for n in range(1, most + 1) if steps % n == 0)
    whole, epochs = data[: case.batch * batches], steps // batches
    pv.fit(
        vae.model, vae.guide, whole, estimator=estimator, epochs=epochs, batch_size=case.batch,
        progress=False,
    )  # fmt: skip


def one_run(contender: str, name: str, steps: int) -> None:
    """Train and print the seconds."""
    import pyro
    import torch
    from cases import CASES, build, hand_written
    from training_step import stock

    logging.getLogger("torch").setLevel(logging.ERROR)
    case = CASES[name]
    torch.manual_seed(0)
    data = (torch.rand(max(60 * case.batch, 2048), *case.shape) < 0.3).float()
    order = torch.randperm(len(data)).split(case.batch)[: len(data) // case.batch]
    state = {"at": 0}

    def orders() -> torch.Tensor:
        state["at"] = (state["at"] + 1) % len(order)
        return order[state["at"]]

    vae = build(case)
    start = time.perf_counter()
    if contender.startswith("pyrovae"):
        pyrovae_run(case, vae, data, steps)
    elif contender == "Pyro SVI":
        pyro.enable_validation(False)
        stock(case, vae, data, orders, drop_in=False)(steps)
    else:
        compiled = contender.startswith("torch.compile")
        hand_written(case, vae, data, orders, fused=compiled, compiled=compiled)(steps)
    print(f"seconds {time.perf_counter() - start}")


def seconds_of(contender: str, name: str, steps: int, cache: Path) -> float:
    """One run in a new process. A warm run comes after a cold one of the same steps."""
    place = cache / f"{contender.split(',')[0]}-{steps}"
    environment = {**os.environ, "PYROVAE_CACHE": str(place / "ours")}
    environment["TORCHINDUCTOR_CACHE_DIR"] = str(place / "inductor")
    words = ["--run", contender, "--case", name, "--steps", str(steps)]
    done = subprocess.run(
        [sys.executable, __file__, *words], env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("seconds ")]
    if done.returncode or not lines:
        sys.exit(f"{contender} failed:\n{done.stderr[-2000:]}")
    return float(lines[-1].split()[1])


def numpyro_seconds(python: str, name: str, steps: int) -> float:
    """NumPyro's jitted epoch, from the first call to the last step, its compilation counted."""
    from cases import CASES

    program = [*shlex.split(python), str(HERE / "numpyro_step.py"), CASES[name].for_numpyro()]
    command = [*program, "--total", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    lengths = [100, 300, 1_000, 3_000, 10_000, 100_000]
    parser.add_argument("--case", default="mlp-128")
    parser.add_argument("--steps", nargs="+", type=int, default=lengths)
    parser.add_argument("--contenders", nargs="+", default=[*OURS, *THEIRS])
    parser.add_argument("--numpyro", default=os.environ.get("NUMPYRO_PYTHON"))
    parser.add_argument("--run", help="train as this contender and print the seconds")
    arguments = parser.parse_args()
    if arguments.run:
        one_run(arguments.run, arguments.case, arguments.steps[0])
        return
    from timing import machine

    runs: dict[str, Callable[[int], float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for contender in arguments.contenders:
            runs[contender] = lambda n, c=contender: seconds_of(c, arguments.case, n, Path(folder))
        if arguments.numpyro:
            runs["NumPyro"] = lambda n: numpyro_seconds(arguments.numpyro, arguments.case, n)
        print(machine() + "\n")
        print(
            f"| {arguments.case}, seconds | " + " | ".join(f"{n:,}" for n in arguments.steps) + " |"
        )
        print("|---" * (1 + len(arguments.steps)) + "|")
        for name, run in runs.items():
            row = [f"{run(n):.1f}" for n in arguments.steps]
            print(f"| {name} | " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
