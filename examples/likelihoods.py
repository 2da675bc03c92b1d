"""Five likelihoods for grey digits, and which of them may be compared.

Three of them give the *probability* of each of the 17 grey levels. They can be compared with one
another. Two are *densities* of real numbers. They are trained and evaluated on levels with uniform
noise added, and can be compared with one another. Bits per dimension of such a density are, on
average over the noise, an upper bound on the bits that it would need for the levels. So a density
with fewer bits than a probability would be the better model, but more bits prove nothing.

    python examples/likelihoods.py
    python examples/likelihoods.py --quick
"""

import argparse

import torch

import pyrovae as pv
from pyrovae import likelihoods, nets

LEVELS = {
    "Categorical": likelihoods.Categorical(num_levels=17),
    "DiscretizedLogistic": likelihoods.DiscretizedLogistic(num_levels=17),
    "DiscretizedLogisticMixture": likelihoods.DiscretizedLogisticMixture(5, num_levels=17),
}
DENSITIES = {
    "Gaussian": likelihoods.Gaussian("decoder"),
    "ContinuousBernoulli": likelihoods.ContinuousBernoulli(),
}


def evaluate(likelihood, epochs=150, num_particles=1_000, seed=0):
    """Held-out evidence of a VAE with this likelihood."""
    digits = pv.data.load("digits")
    if not likelihood.discrete:
        digits = digits.dequantize()  # held-out data once, training data anew for each batch
    torch.manual_seed(seed)
    vae = pv.VAE(
        digits.data_shape, 8, likelihood=likelihood, encoder=nets.MLP(100), decoder=nets.MLP(100)
    )
    vae.fit(
        digits.train, valid=digits.valid, transform=digits.transform, epochs=epochs, lr=2e-3,
        patience=20, seed=seed,
    )  # fmt: skip
    scale = {} if likelihood.discrete else {"data_scale": digits.data_scale}
    return vae.log_marginal(digits.test, num_particles=num_particles, **scale)


def main(quick):
    settings = {"epochs": 1, "num_particles": 20} if quick else {}
    for title, group in {"Probabilities of levels": LEVELS, "Densities": DENSITIES}.items():
        found = {name: evaluate(one, **settings) for name, one in group.items()}
        print(f"{title}, bits per dimension:")
        for name, evidence in found.items():
            print(f"  {name:<28}{evidence.bits_per_dim:.3f}")
        print(f"\n{pv.compare_models(found)}\n")
    print("Uniform guessing among 17 levels: 4.087 bits per dimension.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    main(parser.parse_args().quick)
