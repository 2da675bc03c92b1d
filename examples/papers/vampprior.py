"""VAE with a VampPrior (Tomczak and Welling, 2018, arXiv:1705.07120), tables 1 and 2.

A VAE of gated layers with one or two stochastic layers of 40 latents, with a standard normal prior
or a Vamp prior of 500 pseudo-inputs, on static MNIST, dynamic MNIST or Caltech 101 silhouettes.

    python examples/papers/vampprior.py --data static --model vae --prior normal --seed 0

A run that was stopped goes on when the same command is given again: training at its last epoch,
evidence at its last piece. ``--quick`` trains for 20 epochs and evaluates 1,000 test data with
1,000 particles: static MNIST then has an NLL below 100 nats.

The protocol is the paper's, but for three things. Adam gets the gradients as they are, where the
paper divides each tensor's gradient by its norm. The pseudo-inputs start at training data. In the
two-layer model, networks between layers see latents and features of x side by side; the paper gives
each a layer of its own first.
"""

import argparse
from typing import Any

import torch
from protocol import anneal, evaluate, load, options, prepare, record, train

import pyrovae as pv
from pyrovae import estimators, nets, posteriors, priors, schedules

EPOCHS, WARMUP, BATCH = 2_000, 100, 100


def declare(data_shape: tuple[int, ...], model: str, prior: str, components: int = 500) -> Any:
    """The model of the paper: 1 or 2 stochastic layers."""
    gated = nets.GatedMLP(300, 300)
    normal = posteriors.DiagonalNormal(scale="exp", log_variance_range=(-6, 2))
    parts: dict[str, Any] = {
        "prior": priors.Vamp(components, start="data") if prior == "vamp" else None,
        "posterior": normal,
        "encoder": gated,
        "decoder": gated,
    }
    if model == "vae":
        return pv.VAE(data_shape, latent_dim=40, **parts)
    return pv.HierarchicalVAE(data_shape, (40, 40), conditional=normal, between=gated, **parts)


def main(arguments: argparse.Namespace) -> dict[str, Any]:
    name = "-".join(("vampprior", arguments.data, arguments.model, arguments.prior))
    folder = prepare(arguments, f"{name}-{arguments.seed}")
    quick = arguments.quick
    splits = load(arguments.data)
    if arguments.limit:
        splits = splits.take(arguments.limit)

    torch.manual_seed(arguments.seed)
    vae = declare(splits.data_shape, arguments.model, arguments.prior, min(500, len(splits.train)))
    if arguments.prior == "vamp":
        vae.prior.initialize_from(splits.train)

    epochs = arguments.epochs or (20 if quick else EPOCHS)
    warmup = min(WARMUP, max(1, epochs // 4)) * -(-len(splits.train) // BATCH)
    history = train(
        vae, splits, folder, lr=5e-4, batch_size=BATCH, epochs=epochs, patience=50,
        beta=schedules.Linear(0, 1, steps=warmup), seed=arguments.seed,
        # A Vamp prior has no closed KL.
        estimator=estimators.ELBO() if arguments.prior == "vamp" else estimators.AnalyticKL(),
    )  # fmt: skip

    test = splits.take(1_000).test if quick else splits.test
    particles = 1_000 if quick else 5_000
    evidence = evaluate(vae, test, folder, pv.ImportanceSampling(particles))
    ais = anneal(
        vae, splits.test, folder, num_data=10 if quick else 500, particles=particles,
        method=pv.AIS(
            arguments.temperatures or (20 if quick else 200), 16, start="guide", precision="program"
        ),
    )  # fmt: skip
    return record(arguments, history, **evidence, num_particles=particles, ais=ais)


def parser() -> argparse.ArgumentParser:
    parser = options(__doc__, EPOCHS)
    parser.add_argument("--data", choices=("static", "dynamic", "caltech"), default="static")
    parser.add_argument("--model", choices=("vae", "hvae"), default="vae")
    parser.add_argument("--prior", choices=("normal", "vamp"), default="normal")
    parser.add_argument("--temperatures", type=int, help="of AIS on 500 test data; default 200")
    parser.set_defaults(script=__file__)
    return parser


if __name__ == "__main__":
    main(parser().parse_args())
