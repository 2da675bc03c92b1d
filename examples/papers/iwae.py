"""Importance weighted autoencoders (Burda, Grosse and Salakhutdinov, 2016, arXiv:1509.00519),
table 1, MNIST drawn black and white anew in each batch.

One or two stochastic layers, trained with the ELBO, IWAE or DReG at 1, 5 or 50 particles.

    python examples/papers/iwae.py --estimator IWAE --layers 1 --particles 5 --shorten 20 --seed 0

The paper trains in eight stages of 3^(i - 1) epochs, 3,280 in all, whose learning rate falls from
1e-3 to 1e-4. ``--shorten F`` divides the length of each stage by F, at least one epoch: 20 leaves
166 epochs. There is no early stopping, and validation images are training images, too. Test images
are drawn once. ``--quick`` shortens by 400, to 15 epochs, to show that it runs.
"""

import argparse
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from protocol import finish, options, prepare, train

import pyrovae as pv
from pyrovae import estimators, nets, posteriors, schedules

BATCH, STAGES = 20, range(1, 9)


class Stages(schedules.Schedule):
    """The learning rate of the paper's eight stages.

    Args:
        steps_per_epoch: Batches in an epoch.
        shorten: What the length of each stage is divided by.
    """

    def __init__(self, steps_per_epoch: int, shorten: float = 1.0):
        self.steps_per_epoch, self.shorten = steps_per_epoch, shorten
        self.epochs = [max(1, round(3 ** (i - 1) / shorten)) for i in STAGES]
        self.ends = [steps_per_epoch * epochs for epochs in accumulate(self.epochs)]

    def __call__(self, step: int) -> float:
        i = next((i for i, end in zip(STAGES, self.ends, strict=True) if step < end), STAGES[-1])
        return 1e-4 * round(10 ** (1 - (i - 1) / 7), 1)


def declare(data_shape: tuple[int, ...], layers: int) -> Any:
    """784-200-200-50, or 784-200-200-100-100-100-50, with tanh units."""
    normal = posteriors.DiagonalNormal(scale="exp")
    outer = nets.MLP(200, 200, activation="tanh", init="glorot")
    if layers == 1:
        return pv.VAE(data_shape, 50, posterior=normal, encoder=outer, decoder=outer)
    return pv.HierarchicalVAE(
        data_shape, (100, 50), posterior=normal, conditional=normal, inference="bottom-up",
        encoder=outer, decoder=outer, decoder_sees="lowest",
        between=nets.MLP(100, 100, activation="tanh", init="glorot"),
    )  # fmt: skip


def main(arguments: argparse.Namespace) -> dict[str, Any]:
    chosen = (arguments.estimator, arguments.layers, arguments.particles, arguments.seed)
    folder = prepare(arguments, "-".join(("iwae", *map(str, chosen))))
    grey = pv.data.load("mnist")
    drawn = grey.binarize("dynamic")
    splits = replace(drawn, train=torch.cat([grey.train, grey.valid]), labels=None)
    if arguments.limit:
        splits = splits.take(arguments.limit)

    torch.manual_seed(arguments.seed)
    vae = declare(splits.data_shape, arguments.layers).initialize_from(splits.train)
    shorten = 400 if arguments.quick else arguments.shorten
    stages = Stages(-(-len(splits.train) // BATCH), shorten)
    history = train(
        vae, splits, folder, select=False, lr=stages, batch_size=BATCH, seed=arguments.seed,
        epochs=arguments.epochs or sum(stages.epochs),
        estimator=getattr(estimators, arguments.estimator)(arguments.particles),
        optimizer=partial(torch.optim.Adam, betas=(0.99, 0.999), eps=1e-4),
    )  # fmt: skip
    return finish(arguments, vae, splits, folder, history)


def parser() -> argparse.ArgumentParser:
    parser = options(__doc__, 3_280)
    parser.add_argument("--estimator", choices=("ELBO", "IWAE", "DReG"), default="IWAE")
    parser.add_argument("--layers", type=int, choices=(1, 2), default=1)
    parser.add_argument("--particles", type=int, default=50)
    parser.add_argument("--shorten", type=float, default=1.0, help="divisor of the schedule")
    parser.set_defaults(script=__file__)
    return parser


if __name__ == "__main__":
    main(parser().parse_args())
