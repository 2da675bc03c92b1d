"""The plain autoencoder is a VAE with a point for a posterior and no KL term. Its samples fail;
here is why.

With ``posteriors.Delta()``, a Gaussian likelihood of fixed scale and ``beta=0``, the loss is the
squared error up to a factor and a constant: a plain autoencoder. Nothing then asks the codes of
data to lie where the prior puts its mass, so a draw from N(0, I) falls between them, where the
decoder was never trained. The VAE with the same networks pays a KL term for that, reconstructs a
little worse, and samples well.

The script trains both on digits and prints, for each: the reconstruction error, how far the codes'
moments are from the prior's, and how far samples lie from their nearest training image, beside the
same for held-out images.
"""

import argparse

import torch
from torch import Tensor

import pyrovae as pv
from pyrovae import likelihoods, nets, posteriors


def nearest(x: Tensor, train: Tensor) -> float:
    """Mean squared distance from each image to its nearest neighbour in the training data."""
    return torch.cdist(x.flatten(1), train.flatten(1)).min(1).values.square().mean().item()


def compare(epochs: int = 200, seed: int = 0) -> dict[str, dict[str, float]]:
    """Train the pair on digits; figures by name of the model."""
    digits = pv.data.load("digits")
    results = {"held-out data": {"nearest": nearest(digits.test, digits.train)}}
    declared = {
        "autoencoder": (posteriors.Delta(), 0.0),
        "VAE": (posteriors.DiagonalNormal(), 1.0),
    }
    for name, (posterior, beta) in declared.items():
        torch.manual_seed(seed)
        vae = pv.VAE(
            digits.data_shape,
            latent_dim=8,
            likelihood=likelihoods.Gaussian(scale=0.15),
            posterior=posterior,
            encoder=nets.MLP(128),
            decoder=nets.MLP(128),
        )
        pv.fit(vae.model, vae.guide, digits.train, beta=beta, epochs=epochs, seed=seed)
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            codes = vae.encode(digits.train).sample()
            results[name] = {
                "squared error": (vae.reconstruct(digits.test) - digits.test)
                .square()
                .flatten(1)
                .sum(1)
                .mean()
                .item(),
                "code mean": codes.mean(0).norm().item(),
                "code scale": codes.std(0).mean().item(),
                "nearest": nearest(vae.sample(500, mean=True), digits.train),
            }
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Plain autoencoder against VAE, on digits.")
    parser.add_argument(
        "--smoke", action="store_true", help="a run of seconds that shows only that it runs"
    )
    results = compare(epochs=2 if parser.parse_args().smoke else 200)
    columns = ("squared error", "code mean", "code scale", "nearest")
    print(f"{'':>14}" + "".join(f"{column:>15}" for column in columns))
    for name, figures in results.items():
        print(
            f"{name:>14}"
            + "".join(f"{figures[c]:>15.3f}" if c in figures else f"{'':>15}" for c in columns)
        )
    print(
        "\nThe prior's codes have mean 0 and scale 1. 'nearest' of samples should be that of "
        "held-out data."
    )
