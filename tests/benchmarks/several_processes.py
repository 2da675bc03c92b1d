"""Time of a training step by one process and by several on this machine, as ``torchrun`` starts
them: ``python tests/benchmarks/several_processes.py``.

Each process has one thread. The times are those of the second half of the steps, so that capture
and compilation are left out.
"""

import argparse
import os
import subprocess
import sys
import time

import torch

import pyrovae as pv
from pyrovae import nets

MODELS = {
    "MLP 784-400-20": lambda: pv.VAE((784,), 20, encoder=nets.MLP(400), decoder=nets.MLP(400)),
    "MLP 784-2000-2000-50": lambda: pv.VAE(
        (784,), 50, encoder=nets.MLP(2000, 2000), decoder=nets.MLP(2000, 2000)
    ),
}


def measure(name, batch, steps):
    """Milliseconds of a step, the median over epochs of ten steps."""
    torch.manual_seed(0)
    vae = MODELS[name]()
    x = torch.bernoulli(torch.full((10 * batch, *vae.data_shape), 0.3))
    history = vae.fit(
        x,
        epochs=max(4, steps // 10),
        batch_size=batch,
        compile=False,
        progress=False,
    )
    half = sorted(history["seconds"][len(history) // 2 :])
    return 100 * half[len(half) // 2]  # of ten steps each


def child(arguments):
    torch.set_num_threads(1)
    found = measure(arguments.child, arguments.batch, arguments.steps)
    if os.environ.get("RANK", "0") == "0":
        print(f"{found:.2f}")


def start(words, size):
    """The first process's output."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", str(size), __file__, *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--models", nargs="+", default=[*MODELS])
    arguments = parser.parse_args()
    if arguments.child:
        return child(arguments)
    print(f"torch {torch.__version__}, {time.strftime('%Y-%m-%d')}, batch {arguments.batch}")
    print(f"| model | {' | '.join(f'{n} processes, ms' for n in arguments.processes)} |")
    for name in arguments.models:
        words = ["--child", name, "--batch", arguments.batch, "--steps", arguments.steps]
        found = [start(words, num) for num in arguments.processes]
        print(f"| {name} | {' | '.join(found)} |", flush=True)
    return None


if __name__ == "__main__":
    main()
