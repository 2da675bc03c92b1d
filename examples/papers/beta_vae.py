"""Rate and distortion over beta (Higgins et al., 2017; Alemi et al., 2018, arXiv:1711.00464).

One VAE is trained for each beta, on Fashion-MNIST drawn black and white anew in each batch where
its files are found, else on MNIST. The line of a run has rate (mean KL) and distortion (minus the
mean of log p(x | z)) of held-out data, mutual information of z and the data, and active latents.
Beside these stands the curve of the decoder that was trained at beta = 1, from one annealing run
(Huang et al., 2020, arXiv:2008.06653): at each beta the best codes of that decoder.

    python examples/papers/beta_vae.py --seed 0

``--quick`` trains for 2 epochs at three betas: the rate falls and the distortion rises with beta.
"""

import argparse
from typing import Any

import torch
from protocol import options, prepare, record, train
from vampprior import declare

import pyrovae as pv
from pyrovae import estimators

EPOCHS, BETAS = 100, (0.1, 0.3, 0.5, 1.0, 2.0, 4.0, 8.0)


def load() -> pv.data.Splits:
    """Fashion-MNIST, or MNIST where there is none."""
    try:
        splits = pv.data.load("fashion-mnist")
    except FileNotFoundError:
        splits = pv.data.load("mnist")
    return splits.binarize("dynamic")


def main(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    splits = load()
    if arguments.limit:
        splits = splits.take(arguments.limit)
    test = splits.take(arguments.tested or (500 if arguments.quick else 2_000)).test
    lines = []
    for beta in (0.3, 1.0, 4.0) if arguments.quick else BETAS:
        folder = prepare(arguments, f"beta_vae-{splits.name}-{arguments.seed}") / f"beta-{beta:g}"
        folder.mkdir(exist_ok=True)
        torch.manual_seed(arguments.seed)
        vae = declare(splits.data_shape, "vae", "normal")
        # The bound of validation is at beta = 1, so it must not choose the weights.
        history = train(
            vae, splits, folder, select=False, lr=5e-4, batch_size=100, beta=beta,
            epochs=arguments.epochs or (2 if arguments.quick else EPOCHS), seed=arguments.seed,
            estimator=estimators.AnalyticKL(),
        )  # fmt: skip
        nats = pv.where_the_nats_go(vae.model, vae.guide, test, num_particles=16)
        figures = {"rate": nats.mean("kl"), "distortion": -nats.mean("reconstruction")}
        figures |= {"information": nats.mean("mutual_information"), "active": nats.active_units}
        labels = {"data": splits.name, "codes": "guide"}
        lines.append(record(arguments, history, **labels, beta=beta, **figures))
        if beta == 1:
            curve = annealed(vae, test[: 20 if arguments.quick else 200], arguments.quick)
            labels["codes"] = "annealed"
            lines += [record(arguments, history, **labels, **point) for point in curve]
    return lines


def annealed(vae: pv.VAE, test: torch.Tensor, quick: bool) -> list[dict[str, float]]:
    """Rate and distortion of the decoder's best codes, at the betas up to 1 that were trained."""
    method = pv.AIS(50 if quick else 500, 16, schedule="linear", precision="program")
    curve = pv.evidence.annealed_rate_distortion(vae.model, vae.guide, test, method=method)
    points = curve.sel(beta=[beta for beta in BETAS if beta <= 1], method="nearest")
    names = ("beta", "rate", "distortion")
    return [
        dict(zip(names, map(float, row), strict=True))
        for row in zip(*(points[name].values for name in names), strict=True)
    ]


def parser() -> argparse.ArgumentParser:
    parser = options(__doc__, EPOCHS)
    parser.set_defaults(script=__file__)
    return parser


if __name__ == "__main__":
    main(parser().parse_args())
