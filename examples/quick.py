"""The whole job in a few lines: declare a VAE, train it on real digits, and estimate its held-out
log-likelihood.

    python examples/quick.py
    python examples/quick.py --quick
"""

import argparse

import torch

import pyrovae as pv
from pyrovae import estimators, likelihoods, priors


def main(quick):
    torch.manual_seed(0)
    digits = pv.data.load("digits").binarize("threshold")
    vae = pv.VAE(
        digits.data_shape,
        latent_dim=8,
        prior=priors.StandardNormal(),
        likelihood=likelihoods.Bernoulli(),
    )
    history = vae.fit(
        digits.train,
        valid=digits.valid,
        estimator=estimators.IWAE(num_particles=5),
        epochs=2 if quick else 100,
        patience=10,
    )
    print(history)
    print(vae.log_marginal(digits.test, num_particles=100 if quick else 1_000))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    main(parser.parse_args().quick)
