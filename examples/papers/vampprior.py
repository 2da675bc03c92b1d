"""VAE with a VampPrior (Tomczak and Welling, 2018, arXiv:1705.07120), tables 1 and 2.

A VAE of gated layers with one or two stochastic layers of 40 latents, with a standard normal prior
or a Vamp prior of 500 pseudo-inputs, on static MNIST, dynamic MNIST or Caltech 101 silhouettes.

    python examples/papers/vampprior.py --data static --model vae --prior normal --seed 0

A run that was stopped goes on when the same command is given again: training at its last epoch,
evidence at its last piece. ``--quick`` trains for 20 epochs and evaluates 1,000 test data with
1,000 particles: static MNIST then has an NLL below 100 nats.

The protocol is the paper's, but for two things. Adam gets the gradients as they are, where the
paper divides each tensor's gradient by its norm. In the two-layer model, networks between layers
see latents and features of x side by side; the paper gives each a layer of its own first.
Pseudo-inputs start uniform in [0, 1].
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from protocol import finish, load, options, prepare, train

import pyrovae as pv
from pyrovae import estimators, nets, posteriors, priors, schedules

EPOCHS, WARMUP, BATCH = 2_000, 100, 100


def declare(data_shape: tuple[int, ...], model: str, prior: str, components: int = 500) -> Any:
    """The model of the paper: 1 or 2 stochastic layers."""
    mixtures = {"vamp": priors.Vamp(components), "exemplar": priors.Exemplar()}
    gated = nets.GatedMLP(300, 300)
    normal = posteriors.DiagonalNormal(scale="exp", log_variance_range=(-6, 2))
    parts: dict[str, Any] = {
        "prior": mixtures.get(prior),
        "posterior": normal,
        "encoder": gated,
        "decoder": gated,
    }
    if model == "vae":
        return pv.VAE(data_shape, latent_dim=40, **parts)
    return pv.HierarchicalVAE(data_shape, (40, 40), conditional=normal, between=gated, **parts)


def fitted(
    arguments: argparse.Namespace, splits: pv.data.Splits, folder: Path
) -> tuple[Any, pv.History]:
    """The model that the arguments choose, trained by the paper's protocol."""
    torch.manual_seed(arguments.seed)
    components = min(500, len(splits.train))
    vae = declare(splits.data_shape, arguments.model, arguments.prior, components)
    if arguments.prior == "exemplar":
        vae.prior.initialize_from(splits.train)
    epochs = arguments.epochs or (20 if arguments.quick else EPOCHS)
    warmup = min(WARMUP, max(1, epochs // 4)) * -(-len(splits.train) // BATCH)
    history = train(
        vae, splits, folder, lr=5e-4, batch_size=BATCH, epochs=epochs, patience=50,
        beta=schedules.Linear(0, 1, steps=warmup), seed=arguments.seed,
        # A mixture has no closed KL.
        estimator=estimators.AnalyticKL() if arguments.prior == "normal" else estimators.ELBO(),
    )  # fmt: skip
    return vae, history


def prepared(arguments: argparse.Namespace) -> tuple[pv.data.Splits, Path]:
    """The data, and the folder of the run."""
    chosen = (arguments.data, arguments.model, arguments.prior, str(arguments.seed))
    folder = prepare(arguments, "-".join(("vampprior", *chosen)))
    splits = load(arguments.data)
    return splits.take(arguments.limit) if arguments.limit else splits, folder


def main(arguments: argparse.Namespace) -> dict[str, Any]:
    splits, folder = prepared(arguments)
    vae, history = fitted(arguments, splits, folder)
    return finish(arguments, vae, splits, folder, history)


def parser(
    description: str | None = __doc__, priors: tuple[str, ...] = ("normal", "vamp")
) -> argparse.ArgumentParser:
    parser = options(description, EPOCHS, annealed=500)
    parser.add_argument("--data", choices=("static", "dynamic", "caltech"), default="static")
    parser.add_argument("--model", choices=("vae", "hvae"), default="vae")
    parser.add_argument("--prior", choices=priors, default=priors[0])
    parser.set_defaults(script=__file__)
    return parser


if __name__ == "__main__":
    main(parser().parse_args())
