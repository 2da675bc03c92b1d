"""Ladder variational autoencoders (Sønderby et al., 2016, arXiv:1602.02282) of four layers.

    python examples/papers/deep.py --data static --guide ladder --seed 0

The ladder guide shares the generative path; the bottom-up guide beside it does not. Layers have 40,
20, 20 and 10 latents from the data upwards; the networks are gated, and the decoder sees all
layers. Protocol as in ``vampprior.py``, with a warm-up of 200 epochs. The line of a run counts the
active latents of each layer, those whose mean given x varies over data by more than 0.01.
``--conv`` takes convolutions next to the data. ``--quick`` trains for 20 epochs, to show
that it runs.
"""

import argparse
from typing import Any

import torch
from protocol import finish, load, options, prepare, train
from torch import Tensor

import pyrovae as pv
from pyrovae import estimators, nets, posteriors, schedules
from pyrovae.evidence.analysis.nats import ACTIVE

EPOCHS, WARMUP, BATCH, LAYERS = 2_000, 200, 100, (40, 20, 20, 10)


def declare(data_shape: tuple[int, ...], guide: Any, *, conv: bool = False) -> Any:
    """Four stochastic layers."""
    gated = nets.GatedMLP(300, 300)
    outer = nets.Residual(16, 32, blocks=1) if conv else gated
    normal = posteriors.DiagonalNormal(scale="exp", log_variance_range=(-6, 2))
    return pv.HierarchicalVAE(
        data_shape, LAYERS, posterior=normal, conditional=normal, inference=guide, encoder=outer,
        decoder=outer, between=nets.GatedMLP(300),
    )  # fmt: skip


def active(vae: Any, test: Tensor) -> dict[str, int]:
    """Active latents of each layer."""
    nats = pv.where_the_nats_go(vae.model, vae.guide, test, num_particles=32)
    counted = torch.as_tensor(nats.activity.values > ACTIVE)
    names = [f"z{n + 1}" for n in range(len(LAYERS))]
    order = list(zip(names, LAYERS, strict=True))
    if vae.encode(test[:1]).event_shape[0] == LAYERS[-1]:  # the guide draws the top layer first
        order.reverse()
    parts = counted.split([size for _, size in order])
    found = {name: int(part.sum()) for (name, _), part in zip(order, parts, strict=True)}
    return {name: found[name] for name in names}


def main(arguments: argparse.Namespace) -> dict[str, Any]:
    chosen = (arguments.data, arguments.guide, *["conv"] * arguments.conv, str(arguments.seed))
    folder = prepare(arguments, "-".join(("deep", *chosen)))
    splits = load(arguments.data)
    if arguments.limit:
        splits = splits.take(arguments.limit)
    torch.manual_seed(arguments.seed)
    vae = declare(splits.data_shape, arguments.guide, conv=arguments.conv)
    epochs = arguments.epochs or (20 if arguments.quick else EPOCHS)
    warmup = min(WARMUP, max(1, epochs // 4)) * -(-len(splits.train) // BATCH)
    history = train(
        vae, splits, folder, lr=5e-4, batch_size=BATCH, epochs=epochs, patience=50,
        beta=schedules.Linear(0, 1, steps=warmup), seed=arguments.seed,
        # A bottom-up guide draws against the model's order, which leaves no closed KL.
        estimator=estimators.ELBO() if arguments.guide == "bottom-up" else estimators.AnalyticKL(),
    )  # fmt: skip
    units = active(vae, splits.take(200 if arguments.quick else 1_000).test)
    return finish(arguments, vae, splits, folder, history, active=units)


def parser() -> argparse.ArgumentParser:
    parser = options(__doc__, EPOCHS, annealed=100)
    parser.add_argument("--data", choices=("static", "dynamic"), default="static")
    parser.add_argument("--guide", choices=("ladder", "bottom-up", "top-down"), default="ladder")
    parser.add_argument("--conv", action="store_true", help="convolutions next to the data")
    parser.set_defaults(script=__file__)
    return parser


if __name__ == "__main__":
    main(parser().parse_args())
