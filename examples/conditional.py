"""A VAE of digits given their labels. Bayes' rule turns it into a classifier.

The data are a pair (x, y), and evidence is log p(x | y). If all labels are equally likely, p(x) is
the mean of p(x | y) over the labels, and p(y | x) is the share of a label in it. The script prints
held-out log p(x | y) and log p(x), beside log p(x) of a plain VAE with the same networks. It also
prints how many labels p(y | x) gets right, though nothing was trained to classify.

    python examples/conditional.py
    python examples/conditional.py --quick
"""

import argparse
import math

import torch

import pyrovae as pv
from pyrovae import nets


def train(epochs=200, num_test=None, num_particles=500, seed=0):
    """``(10, N)`` log p(x | y) for each label y, the true labels, and log p(x) by a plain VAE."""
    digits = pv.data.load("digits").binarize("threshold")
    small = {"encoder": nets.MLP(100), "decoder": nets.MLP(100)}
    settings = {"epochs": epochs, "lr": 2e-3, "patience": 20, "seed": seed}
    (x, y), count = digits.labelled("test"), {"num_particles": num_particles}
    x, y = x[:num_test], y[:num_test]
    torch.manual_seed(seed)
    cvae = pv.ConditionalVAE(digits.data_shape, 8, 10, joint=nets.MLP(100), features=50, **small)
    cvae.fit(digits.labelled("train"), valid=digits.labelled("valid"), **settings)
    each = [cvae.log_marginal((x, torch.full_like(y, k)), **count) for k in range(10)]
    torch.manual_seed(seed)
    plain = pv.VAE(digits.data_shape, 8, **small)
    plain.fit(digits.train, valid=digits.valid, **settings)
    given = torch.stack([torch.as_tensor(one.log_marginal.values) for one in each])
    return given, y, torch.as_tensor(plain.log_marginal(x, **count).log_marginal.values)


def main(quick):
    given, y, plain = train(*((1, 20, 10) if quick else ()))
    true = given.gather(0, y[None])[0]
    rows = {
        "log p(x | true label)": true,
        "log p(x) by Bayes' rule": given.logsumexp(0) - math.log(10),
        "log p(x) of a plain VAE": plain,
    }
    for name, values in rows.items():
        error = float(values.std() / len(values) ** 0.5)
        print(f"{name:<24}{float(values.mean()):>8.2f} ± {error:.2f} nats")
    right = (given.argmax(0) == y).double()
    error = float((right.mean() * (1 - right.mean()) / len(y)) ** 0.5)
    print(f"labels right by p(y | x): {float(right.mean()):.1%} ± {error:.1%} of {len(y)}")
    print("\n± is the standard error over held-out data. One training seed.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    main(parser.parse_args().quick)
