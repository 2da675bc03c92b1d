"""Colour images: a mixture of discretised logistics on CIFAR-10, in bits per dimension.

Red, green and blue of a pixel come from one of a few components. With ``coupled=True`` green also
depends on red, and blue on both, so what makes the channels of a pixel alike need not pass through
z. The likelihood is a probability of the 256 published levels: guessing costs eight bits a
dimension, and no scale of the pixels enters.

    python examples/rgb.py
    python examples/rgb.py --quick

The file ``cifar10_subset.npz`` in ``$PYROVAE_DATA`` holds ``x_train`` and ``x_test``, images
``(N, 32, 32, 3)`` of bytes.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch

import pyrovae as pv
from pyrovae import likelihoods, nets


def load(num_train, num_test):
    """Training and test images, ``(N, 3, 32, 32)`` in steps of 1/255."""
    path = Path(os.environ.get("PYROVAE_DATA", ".")) / "cifar10_subset.npz"
    if not path.is_file():
        raise SystemExit(f"There is no file {path}. The first lines of this script describe it.")
    with np.load(path) as file:
        pair = file["x_train"][:num_train], file["x_test"][:num_test]
    return [torch.from_numpy(x).permute(0, 3, 1, 2).contiguous().float() / 255 for x in pair]


def evaluate(
    coupled, num_train=5_000, num_test=200, channels=(16, 32), epochs=10, num_particles=100, seed=0
):
    """Held-out evidence of a residual VAE."""
    train, test = load(num_train, num_test)
    torch.manual_seed(seed)
    vae = pv.VAE(
        (3, 32, 32),
        latent_dim=64,
        likelihood=likelihoods.DiscretizedLogisticMixture(5, coupled=coupled),
        encoder=nets.Residual(*channels, blocks=1),
        decoder=nets.Residual(*channels, blocks=1),
    )
    vae.fit(train, epochs=epochs, batch_size=64, lr=5e-4, clip_norm=100.0, seed=seed)
    return vae.log_marginal(test, num_particles=num_particles, seed=seed)


def main(quick):
    small = {"num_train": 64, "num_test": 8, "channels": (8, 8), "epochs": 1, "num_particles": 10}
    for coupled in (False, True):
        evidence = evaluate(coupled, **(small if quick else {}))
        name = "coupled" if coupled else "independent"
        print(f"{name} channels: {evidence.bits_per_dim:.3f} bits per dimension")
    print("Guessing: 8.000. One training seed, few images and epochs: no published figure is so.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    main(parser.parse_args().quick)
