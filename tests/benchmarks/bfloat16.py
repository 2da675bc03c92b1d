r"""Networks in bfloat16 beside full precision: the time of an epoch, and what the rounding costs.

    python tests/benchmarks/bfloat16.py [--epochs 60] [--batch 1024] [--threads 2]

Both train the gated VAE of examples/papers/vampprior.py on static MNIST, from the same weights by
the same batches, one after the other. Then the validation bound, which is always computed in full
precision, and the held-out NLL of 1,000 test data with 1,000 particles stand side by side.
"""

import argparse
import copy
import statistics
import sys
from pathlib import Path

import torch
from timing import machine

sys.path.append(str(Path(__file__).parents[2] / "examples" / "papers"))

from protocol import load
from vampprior import declare

import pyrovae as pv
from pyrovae import estimators, schedules


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(machine() + "\n")
    splits = load("static")
    torch.manual_seed(0)
    begun = declare(splits.data_shape, "vae", "normal")
    steps = arguments.epochs * -(-len(splits.train) // arguments.batch)
    found = {}
    for networks in ("full", "bfloat16"):
        vae = copy.deepcopy(begun)
        history = vae.fit(
            splits.train, valid=splits.valid, estimator=estimators.AnalyticKL(), seed=0,
            batch_size=arguments.batch, epochs=arguments.epochs, networks=networks,
            beta=schedules.Linear(0, 1, steps=steps // 4), progress=False,
        )  # fmt: skip
        found[networks] = vae.log_marginal(splits.test[:1_000], num_particles=1_000), history
    print(f"| batch {arguments.batch} | s an epoch | best validation bound | NLL | its error |")
    print("|---|---|---|---|---|")
    for networks, (evidence, history) in found.items():
        print(
            f"| {networks} | {statistics.median(history['seconds']):.2f} | "
            f"{max(history['valid_bound']):.2f} | {-evidence.mean():.3f} | "
            f"{evidence.monte_carlo_error():.3f} |"
        )
    pair = pv.compare_models({name: evidence for name, (evidence, _) in found.items()})
    print(f"\n{pair}")
    bounds = [history["valid_bound"] for _, history in found.values()]
    apart = [abs(one - other) for one, other in zip(*bounds, strict=True)]
    print(f"\nLargest distance of the validation bounds after the first quarter of the epochs: "
          f"{max(apart[arguments.epochs // 4 :]):.2f} nats")  # fmt: skip


if __name__ == "__main__":
    main()
