"""ELBO estimators at the same weights: bounds, gradients and what they cost.

A VAE of digits is trained with the ELBO. Then each estimator runs many times at these weights. The
table shows how far each bound lies below log p(x), and the signal-to-noise ratio (SNR) of the
gradients, which should grow with the number of particles. For IWAE's guide it falls: more particles
tighten the bound, and drown the gradient in noise. DReG has the same bound and a better gradient.

    python examples/estimators.py
    python examples/estimators.py --quick
"""

import argparse

import torch

import pyrovae as pv
from pyrovae import estimators, nets

ESTIMATORS = {
    "ELBO": estimators.ELBO(),
    "STL": estimators.STL(),
    "IWAE": estimators.IWAE(),
    "DReG": estimators.DReG(),
    "VIMCO": estimators.VIMCO(),
}


def trained(epochs, seed=0):
    """A VAE of black and white digits, and held-out digits."""
    digits = pv.data.load("digits").binarize("threshold")
    torch.manual_seed(seed)
    vae = pv.VAE(digits.data_shape, 8, encoder=nets.MLP(100), decoder=nets.MLP(100))
    vae.fit(digits.train, epochs=epochs, lr=2e-3, seed=seed)
    return vae, digits.test


def main(quick):
    vae, test = trained(2 if quick else 40)
    table = pv.compare_estimators(
        vae.model,
        vae.guide,
        test[:5] if quick else test[:30],
        ESTIMATORS,
        num_particles=(2, 8) if quick else (2, 8, 64),
        num_replicates=4 if quick else 100,
        reference_particles=50 if quick else 2_000,
    )
    print(table)
    print("\nSlopes of log SNR against log K; a mean of independent gradients has 0.50:")
    for name, (model, guide) in zip(ESTIMATORS, table.slopes().values, strict=True):
        print(f"{name:<6} model {model:5.2f}   guide {guide:5.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    main(parser.parse_args().quick)
