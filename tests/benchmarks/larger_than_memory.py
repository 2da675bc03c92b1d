"""Memory while data larger than a limit on the process are trained on and evaluated, on Linux.

python tests/benchmarks/larger_than_memory.py [--gibibytes 2] [--limit 1]

Each row is a process of its own. Once everything is imported, its private memory may grow by
``--limit`` GiB (``RLIMIT_DATA``), and a larger allocation fails. The growth is that of the resident
memory, pages of files included, at its peak.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from memory import growth, resident

WIDTH = 4096


def write(path: Path, num_bytes: int) -> None:
    """A file of float32 numbers of so many bytes, of which the disk holds only a part."""
    array = np.lib.format.open_memmap(path, "w+", np.float32, (num_bytes // (4 * WIDTH), WIDTH))
    array[::100] = np.random.default_rng(0).normal(size=array[::100].shape)
    array.flush()


def work(what: str, path: Path) -> None:
    import torch
    from torch.utils.data import DataLoader, Dataset

    import pyrovae as pv

    class OnDisk(Dataset):
        def __init__(self) -> None:
            mapped = np.load(path, mmap_mode="r")
            self.size, self.offset = len(mapped), mapped.offset

        def __len__(self) -> int:
            return self.size

        def __getitem__(self, index: int) -> torch.Tensor:
            offset = self.offset + 4 * WIDTH * index
            return torch.from_numpy(np.fromfile(path, np.float32, WIDTH, offset=offset))

    net = pv.nets.MLP(8)
    vae = pv.VAE(WIDTH, 2, likelihood=pv.likelihoods.Gaussian(), encoder=net, decoder=net)
    how = {"epochs": 1, "batch_size": 1024, "progress": False, "device": "cpu"}
    if what == "fit, memory map":
        vae.fit(np.load(path, mmap_mode="r"), **how)
    elif what == "fit, Dataset":
        vae.fit(OnDisk(), **how)
    elif what == "fit, DataLoader":
        vae.fit(DataLoader(OnDisk(), 1024), **how)
    elif what == "data.load, fit":
        parts = pv.data.load(path)
        vae.fit(parts.train, valid=parts.valid, **how)
    elif what == "log_marginal":
        vae.log_marginal(np.load(path, mmap_mode="r"), num_particles=1, device="cpu")
    elif what == "command line":
        words = "train --data PATH --likelihood Gaussian --latent_dim 2 --epochs 1 --device cpu"
        words += " --batch_size 1024 --encoder.hidden [8] --decoder.hidden [8]"
        words += " --method.num_particles 2 --out OUT"
        places = {"PATH": str(path), "OUT": str(path.parent / "run")}
        from pyrovae.cli import main

        assert main([places.get(word, word) for word in words.split()]) in (0, None)
    else:
        np.load(path).astype(np.float32)  # what a library that loads would do


ROWS = [
    "fit, memory map",
    "fit, Dataset",
    "fit, DataLoader",
    "data.load, fit",
    "log_marginal",
    "command line",
    "numpy.load",
]


def measure(what: str, path: Path, limit: float) -> int:
    """Bytes of growth in this process, under the limit."""
    import torch

    import pyrovae as pv

    vae = pv.VAE(8, 2, likelihood=pv.likelihoods.Gaussian())
    vae.fit(torch.zeros(64, 8), epochs=1, progress=False, device="cpu")  # all is imported now
    vae.log_marginal(torch.zeros(64, 8), num_particles=2, device="cpu")
    allowed = resident("VmData") + int(limit * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
    return growth(lambda: work(what, path))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gibibytes", type=float, default=2.0)
    parser.add_argument("--limit", type=float, default=1.0)
    parser.add_argument("--row", nargs=2, help="what, path: print this row alone")
    arguments = parser.parse_args()
    if arguments.row:
        print(measure(arguments.row[0], Path(arguments.row[1]), arguments.limit) / 2**20)
        return
    print(f"{arguments.gibibytes:g} GiB of data, {arguments.limit:g} GiB allowed\n")
    print("| what | peak growth, MiB |\n|---|---|")
    for what in ROWS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "x.npy"
            write(path, int(arguments.gibibytes * 2**30))
            command = [sys.executable, __file__, "--limit", str(arguments.limit)]
            done = subprocess.run(
                [*command, "--row", what, str(path)], capture_output=True, text=True
            )
        last = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()[-1]
        shown = f"{float(last):,.0f}" if done.returncode == 0 else f"fails: {last[:60]}"
        print(f"| {what} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
