r"""What epochs cost beside their steps and their validation, in CPU seconds of one thread.

    python tests/benchmarks/epoch.py [--cases tiny digits mlp] [--epochs 100]

Each case is one call of ``fit`` with a log and a checkpoint. "Saving" is the checkpoint; "other" is
all else between the first step and the last: looks at losses and weights, rows, the log, the best
weights, random states. Captures and imports are once a run, and in no column but their own.
"""

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from timing import machine

import pyrovae as pv
from pyrovae import VAE, nets
from pyrovae.compilation import Compiled
from pyrovae.training.loop import Trainer

CASES = {  # pixels, latent dimensions, hidden units, training data, batch
    "tiny": ((8,), 2, (32,), 512, 64),
    "digits": ((8, 8), 16, (300, 300), 1247, 128),
    "mlp": ((28, 28), 20, (400,), 10_000, 128),
}
PARTS = {
    "capture": (Compiled, "_capture"),
    "steps": (Trainer, "_take"),
    "validation": (Trainer, "_validate"),
    "saving": (Trainer, "_save"),
    "other": (Trainer, "run"),
}


class Meter:
    """CPU seconds of functions, without those of the others that they call."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.within: list[float] = []
        for label, (owner, name) in PARTS.items():
            setattr(owner, name, self.measured(label, getattr(owner, name)))

    def measured(self, label: str, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            self.within.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                taken, inner = time.process_time() - start, self.within.pop()
                self.seconds[label] += taken - inner
                if self.within:
                    self.within[-1] += taken

        return call


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    parser.add_argument("--epochs", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    meter = Meter()
    print(machine() + "\n")
    print(f"| {arguments.epochs} epochs, CPU s | " + " | ".join(PARTS) + " | saving and other |")
    print("|---" * (len(PARTS) + 2) + "|")
    for name in arguments.cases:
        shape, latent, hidden, size, batch = CASES[name]
        torch.manual_seed(0)
        data = (torch.rand(size + size // 5, *shape) < 0.3).float()
        vae = VAE(shape, latent, encoder=nets.MLP(*hidden), decoder=nets.MLP(*hidden))
        meter.seconds.clear()
        with tempfile.TemporaryDirectory() as folder:
            pv.fit(
                vae.model, vae.guide, data[:size], valid=data[size:], epochs=arguments.epochs,
                batch_size=batch, log=Path(folder, "log"), checkpoint=Path(folder, "state.pt"),
                compile=False, progress=False,
            )  # fmt: skip
        found = meter.seconds
        more = (found["saving"] + found["other"]) / (found["steps"] + found["validation"])
        row = [f"{found[part]:.2f}" for part in PARTS]
        print(f"| {name} | " + " | ".join(row) + f" | {more:.1%} |", flush=True)


if __name__ == "__main__":
    main()
