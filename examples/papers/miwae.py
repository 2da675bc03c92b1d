"""MIWAE, PIWAE and CIWAE (Rainforth et al., 2018, arXiv:1802.04537) at equal cost, on dynamic
MNIST, and the signal-to-noise ratios of their gradients.

The VAE of ``vampprior.py`` with a standard normal prior and its protocol, without warm-up. Each
estimator takes 64 draws a datum and step.

    python examples/papers/miwae.py --estimator PIWAE --seed 0

After training, ``compare_estimators`` measures the gradients of IWAE, DReG and the three at these
weights, for 1 to 64 draws; its figure is written to the folder of the run, its numbers and their
slopes to ``results/snr.jsonl``. ``--quick`` trains for 5 epochs, to show that it runs.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from protocol import HERE, finish, load, options, prepare, train
from vampprior import declare

import pyrovae as pv
from pyrovae import estimators

ESTIMATORS = {
    "MIWAE(8, 8)": estimators.MIWAE(8, 8),
    "PIWAE(8, 8)": estimators.PIWAE(8, 8),
    "CIWAE(0.05)": estimators.CIWAE(0.05, 64),
    "IWAE(64)": estimators.IWAE(64),
}
GRADIENTS = {
    "IWAE": estimators.IWAE(),
    "DReG": estimators.DReG(),
    "CIWAE(0.05)": estimators.CIWAE(0.05),
}


def ratios(vae: Any, test: torch.Tensor, folder: Path, *, quick: bool) -> list[dict[str, Any]]:
    """Signal-to-noise ratios of guide and model over draws, with their slopes on log axes."""
    table = pv.compare_estimators(
        vae.model, vae.guide, test[:16], GRADIENTS,
        num_particles=(1, 4) if quick else (1, 4, 16, 64),
        num_replicates=20 if quick else 400, gradient_reference=False, reference_particles=1_000,
    )  # fmt: skip
    table.plot().flat[0].figure.savefig(folder / "snr.png")
    snr, slopes = table.dataset["snr"], table.slopes("snr")
    rows = []
    for name in GRADIENTS:
        for k in map(int, snr["num_particles"]):
            row: dict[str, Any] = {"estimator": name, "particles": k}
            for group in ("guide", "model"):
                row[f"{group}_snr"] = float(snr.sel(estimator=name, num_particles=k, group=group))
                row[f"slope_{group}"] = float(slopes.sel(estimator=name, group=group))
            rows.append(row)
    return rows


def main(arguments: argparse.Namespace) -> dict[str, Any]:
    name = next(n for n in ESTIMATORS if n.startswith(arguments.estimator))
    folder = prepare(arguments, f"miwae-{arguments.estimator}-{arguments.seed}")
    splits = load("dynamic")
    if arguments.limit:
        splits = splits.take(arguments.limit)
    torch.manual_seed(arguments.seed)
    vae = declare(splits.data_shape, "vae", "normal")
    history = train(
        vae, splits, folder, lr=5e-4, batch_size=100, seed=arguments.seed, patience=50,
        epochs=arguments.epochs or (5 if arguments.quick else 500), estimator=ESTIMATORS[name],
    )  # fmt: skip
    line = finish(arguments, vae, splits, folder, history, estimator=name)
    short = arguments.results or arguments.quick or arguments.limit
    path = (folder if short else HERE / "results") / "snr.jsonl"
    with path.open("a") as file:
        for row in ratios(vae, splits.test, folder, quick=arguments.quick):
            kept = {key: line[key] for key in ("command", "seed", "versions", "hardware")}
            file.write(json.dumps({**row, "trained_with": name, **kept}) + "\n")
    return line


def parser() -> argparse.ArgumentParser:
    parser = options(__doc__, 500)
    names = [name.partition("(")[0] for name in ESTIMATORS]
    parser.add_argument("--estimator", choices=names, default="PIWAE")
    parser.set_defaults(script=__file__)
    return parser


if __name__ == "__main__":
    main(parser().parse_args())
