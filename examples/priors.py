"""Five priors for one VAE of digits: which one explains held-out data best?

The models differ in the prior p(z) alone. Each is trained with three seeds, since another seed
changes the result about as much as another prior does. The table ranks a prior above another only
where data and seeds show the difference: its interval is for all such digits and all seeds.

    python examples/priors.py
    python examples/priors.py --quick
"""

import argparse

import torch

import pyrovae as pv
from pyrovae import nets, priors

PRIORS = {
    "StandardNormal": priors.StandardNormal(),
    "StudentT": priors.StudentT(),
    "GaussianMixture": priors.GaussianMixture(num_components=20),
    "Vamp": priors.Vamp(num_components=50, start="data"),
    "Flow": priors.Flow(num_transforms=2, hidden=(64,)),
}


def evaluate(prior, seed, epochs=100, num_particles=1_000):
    """Held-out evidence of a VAE with this prior, trained with this seed."""
    digits = pv.data.load("digits").binarize("threshold")
    torch.manual_seed(seed)
    vae = pv.VAE(
        digits.data_shape, latent_dim=4, prior=prior, encoder=nets.MLP(100), decoder=nets.MLP(100)
    )
    vae.initialize_from(digits.train)
    vae.fit(digits.train, valid=digits.valid, epochs=epochs, lr=2e-3, patience=20, seed=seed)
    return vae.log_marginal(digits.test, num_particles=num_particles)


def main(quick):
    settings = {"epochs": 1, "num_particles": 50} if quick else {}
    seeds = range(2 if quick else 3)
    runs = {
        name: [evaluate(prior, seed, **settings) for seed in seeds]
        for name, prior in PRIORS.items()
    }
    print("Held-out log p(x) in nats per datum:\n")
    for name, found in runs.items():
        low, high = found[0].interval()
        print(f"{name:>16}  seed 0: {found[0].mean():.2f}, 95 % interval {low:.2f} to {high:.2f}")
    print(f"\n{pv.compare_models(runs)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    main(parser.parse_args().quick)
