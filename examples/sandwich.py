"""How far off is an estimate of log p(x)? A sandwich bounds its error from both sides.

An estimate of log p(x) lies below the truth on average, and nothing in it says how far. For data
that the model itself draws, their true z are known. With them each method also runs backwards, and
then lies above the truth on average. The gap bounds the error of either side on simulated data. The
last column is the estimate for real, held-out digits, which are harder for the model.

    python examples/sandwich.py
    python examples/sandwich.py --quick
"""

import argparse

import torch

import pyrovae as pv
from pyrovae import nets

METHODS = {
    "importance, K = 10": pv.ImportanceSampling(10),
    "importance, K = 1,000": pv.ImportanceSampling(1_000),
    "AIS from the prior, 10 temperatures": pv.AIS(10, 8, start="prior"),
    "AIS from the prior, 100 temperatures": pv.AIS(100, 8, start="prior"),
    "AIS from the guide, 10 temperatures": pv.AIS(10, 8, start="guide"),
    "AIS from the guide, 100 temperatures": pv.AIS(100, 8, start="guide"),
}
QUICK = "importance, K = 10", "AIS from the guide, 10 temperatures"


def trained(epochs, seed=0):
    """A VAE of black and white digits, and held-out digits."""
    digits = pv.data.load("digits").binarize("threshold")
    torch.manual_seed(seed)
    vae = pv.VAE(digits.data_shape, 8, encoder=nets.MLP(100), decoder=nets.MLP(100))
    vae.fit(digits.train, epochs=epochs, lr=2e-3, seed=seed)
    return vae, digits.test


def main(quick):
    vae, test = trained(2 if quick else 60)
    num = 4 if quick else 30
    print(f"Means over {num} data, in nats per datum:\n")
    print(f"{'':<38}{'below':>9}{'above':>9}{'gap':>17}{'real digits':>13}")
    for name in QUICK if quick else METHODS:
        method = METHODS[name]
        sandwich = pv.bdmc(vae.model, vae.guide, num_data=num, method=method)
        real = vae.log_marginal(test[:num], method=method).mean()
        lower, upper = sandwich.below.mean(), sandwich.above.mean()
        gap = f"{upper - lower:.3f} ± {sandwich.gap_error():.3f}"
        print(f"{name:<38}{lower:>9.2f}{upper:>9.2f}{gap:>17}{real:>13.2f}")
    print("\n± is the standard error of the mean gap over simulated data.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    main(parser.parse_args().quick)
