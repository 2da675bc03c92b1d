"""beta-VAE: what a smaller or a larger weight of the KL term costs.

One VAE of black and white digits is trained for each beta, the factor on the KL in training. The
table is of held-out digits, in nats per datum. The *rate* is the KL: how much z says about x. The
*distortion* is minus the mean of log p(x | z): how badly x is known once z is. A larger beta lowers
the rate and raises the distortion. Their sum is minus the ELBO, which is best near beta = 1.

    python examples/beta_vae.py
    python examples/beta_vae.py --quick
"""

import argparse

import torch

import pyrovae as pv
from pyrovae import estimators, nets


def curve(betas, epochs, seed=0):
    """Where the nats of held-out digits go, for a model trained at each beta."""
    digits = pv.data.load("digits").binarize("threshold")
    found = {}
    for beta in betas:
        torch.manual_seed(seed)
        vae = pv.VAE(digits.data_shape, 8, encoder=nets.MLP(100), decoder=nets.MLP(100))
        # No early stopping: it would choose the weights by the bound at beta = 1.
        vae.fit(
            digits.train, estimator=estimators.AnalyticKL(), beta=beta, epochs=epochs, lr=2e-3,
            seed=seed,
        )  # fmt: skip
        found[beta] = pv.where_the_nats_go(vae.model, vae.guide, digits.test, seed=seed)
    return found


def main(quick):
    found = curve((0.5, 2.0) if quick else (0.25, 0.5, 1.0, 2.0, 4.0, 8.0), 2 if quick else 100)
    print(f"{'beta':>5}{'rate':>16}{'distortion':>16}{'ELBO':>17}{'active latents':>16}")
    for beta, nats in found.items():
        cells = (f"{nats.mean(k):.2f} ± {nats.error(k):.2f}" for k in ("kl", "elbo"))
        rate, elbo = cells
        distortion = f"{-nats.mean('reconstruction'):.2f} ± {nats.error('reconstruction'):.2f}"
        active = f"{nats.active_units} of {nats.dataset.sizes['unit']}"
        print(f"{beta:>5g}{rate:>16}{distortion:>16}{elbo:>17}{active:>16}")
    print("\n± is the standard error over held-out data. One training seed for each beta.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    main(parser.parse_args().quick)
