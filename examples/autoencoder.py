"""A plain autoencoder beside a VAE: why samples of the former fail.

With ``posteriors.Delta()``, a Gaussian likelihood of fixed scale and ``beta=0``, the loss is the
squared error up to a factor and a constant. That is a plain autoencoder. Nothing asks its codes to
lie where the prior has its mass. So a draw from N(0, I) falls between the codes of the data, where
the decoder was never trained. The VAE with the same networks pays for that by its KL term. It
reconstructs a little worse, and samples well.

    python examples/autoencoder.py
    python examples/autoencoder.py --quick
"""

import argparse

import torch

import pyrovae as pv
from pyrovae import likelihoods, nets, posteriors

DECLARED = {
    "autoencoder": (posteriors.Delta(), 0.0),
    "VAE": (posteriors.DiagonalNormal(), 1.0),
}


def nearest(x, train):
    """Mean squared distance of images to their nearest training image."""
    return torch.cdist(x.flatten(1), train.flatten(1)).min(1).values.square().mean().item()


def compare(epochs=200, seed=0):
    """Train the pair on digits; figures by the name of the model."""
    digits = pv.data.load("digits")
    results = {"held-out data": {"nearest": nearest(digits.test, digits.train)}}
    for name, (posterior, beta) in DECLARED.items():
        torch.manual_seed(seed)
        vae = pv.VAE(
            digits.data_shape, latent_dim=8, likelihood=likelihoods.Gaussian(scale=0.15),
            posterior=posterior, encoder=nets.MLP(128), decoder=nets.MLP(128),
        )  # fmt: skip
        vae.fit(digits.train, beta=beta, epochs=epochs, seed=seed)
        codes = vae.encode(digits.train).sample()
        error = (vae.reconstruct(digits.test) - digits.test).square().sum((1, 2)).mean()
        results[name] = {
            "squared error": error.item(),
            "code mean": codes.mean(0).norm().item(),
            "code scale": codes.std(0).mean().item(),
            "nearest": nearest(vae.sample(500, mean=True), digits.train),
        }
    return results


def main(quick):
    results = compare(epochs=2 if quick else 200)
    columns = ("squared error", "code mean", "code scale", "nearest")
    print(f"{'':>14}" + "".join(f"{column:>15}" for column in columns))
    for name, found in results.items():
        cells = (f"{found[c]:>15.3f}" if c in found else f"{'':>15}" for c in columns)
        print(f"{name:>14}" + "".join(cells))
    print("\nA draw from the prior has mean 0 and scale 1. 'nearest' is the squared distance of")
    print("samples to their nearest training image; that of held-out data is what to aim at.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    main(parser.parse_args().quick)
