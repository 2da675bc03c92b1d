"""How time and memory grow with batch, particles and latent size, and how long starting takes.

python tests/benchmarks/growth.py
"""

import argparse
import logging
import resource
import statistics
import subprocess
import sys
import time

import pyro
import torch
from timing import machine

from pyrovae import VAE, estimators, nets
from pyrovae.svi import Step

STARTS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import torch, pyro": [sys.executable, "-c", "import torch, pyro"],
    "import pyrovae": [sys.executable, "-c", "import pyrovae"],
    "pyrovae.VAE": [sys.executable, "-c", "import pyrovae; pyrovae.VAE"],
    "pyrovae --help": [sys.executable, "-m", "pyrovae", "--help"],
}


def start_up(rounds: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in STARTS}
    for _ in range(rounds):
        for name, command in STARTS.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times[name].append(time.perf_counter() - start)
    print("| start-up | min s | median s |\n|---|---|---|")
    for name, values in times.items():
        print(f"| `{name}` | {min(values):.2f} | {statistics.median(values):.2f} |")


def measure(batch: int, particles: int, latent: int, rounds: int) -> None:
    """One row, in a process of its own, so that the peak of memory is its own too."""
    torch.manual_seed(0)
    vae = VAE(784, latent, encoder=nets.MLP(400), decoder=nets.MLP(400))
    parameters = list(vae.parameters())
    estimator = estimators.IWAE(particles) if particles > 1 else estimators.ELBO()
    step = Step(
        vae.model, vae.guide, estimator, torch.optim.Adam(parameters), parameters, compile=False
    )
    x = (torch.rand(batch, 784) < 0.3).float()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    step(x)
    first = time.perf_counter() - start
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        step(x)
        times.append(time.perf_counter() - start)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"| {batch} | {particles} | {latent} | {first:.2f} | {1e3 * min(times):.2f} | "
        f"{1e3 * statistics.median(times):.2f} | {peak:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--row", nargs=3, type=int, help="batch, particles, latent size: print this row alone"
    )
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    logging.getLogger("torch").setLevel(logging.ERROR)
    pyro.enable_validation(False)
    if arguments.row:
        measure(*arguments.row, arguments.rounds)
        return
    print(machine() + "\n")
    print(
        "| batch | K | latent | first step s | min ms | median ms | peak MiB "
        "|\n|---|---|---|---|---|---|---|"
    )
    rows = [(b, 1, 20) for b in (16, 64, 256, 1024)] + [(16, k, 20) for k in (5, 50, 250)]
    for row in [*rows, (128, 1, 2), (128, 1, 20), (128, 1, 200)]:
        command = [
            sys.executable,
            __file__,
            "--rounds",
            str(arguments.rounds),
            "--row",
            *map(str, row),
        ]
        print(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip(),
            flush=True,
        )
    print()
    start_up(5)


if __name__ == "__main__":
    main()
