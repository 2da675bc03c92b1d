"""Handwritten digits of which few have a label: model M2 of Kingma et al. (2014).

    python examples/semi_supervised.py --quick        # scikit-learn's digits, one minute
    python examples/semi_supervised.py                # MNIST with 100 labels, an hour

A ConditionalVAE with a classifier takes labels of which most are -1. TraceEnum_ELBO sums an unknown
label exactly. The script prints the share of wrong labels of held-out data, for the model and for
the same classifier trained on the labelled data alone.

The paper has 11.97 % wrong on MNIST with 100 labels (arXiv:1406.5298, table 1, M2). There each step
sees labelled and unlabelled data in equal numbers; here labelled data are repeated in each epoch.
"""

import argparse

import torch
from pyro.infer import TraceEnum_ELBO
from torch import nn

import pyrovae as pv
from pyrovae import nets

NET = nets.MLP(500, activation="softplus")
SMALL = nets.MLP(100, activation="softplus")


def few(y, per_class):
    """Places of as many data of each class."""
    return torch.cat([(y == k).nonzero().flatten()[:per_class] for k in y.unique()])


def mixed(x, y, labelled, repeats):
    """All data without labels, and the labelled ones again with theirs, several times."""
    again = labelled.repeat(repeats)
    data = torch.cat([x, x[again]])
    return data, torch.cat([torch.full((len(x),), -1), y[again]])


def alone(x, y, net, num_labels, steps=500):
    """The classifier of the same size, trained on the labelled data alone."""
    classifier = net.build(tuple(x.shape[1:]), (num_labels,))
    optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(classifier(x), y).backward()
        optimizer.step()
    return classifier.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="scikit-learn's digits")
    parser.add_argument("--smoke", action="store_true", help="the same, with two epochs")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.manual_seed(given.seed)

    quick = given.quick or given.smoke
    name, net, epochs = (
        ("digits", SMALL, 2 if given.smoke else 100) if quick else ("mnist", NET, 60)
    )
    splits = pv.data.load(name).binarize("threshold" if quick else "stochastic")
    (x, y), (test, truth) = splits.labelled("train"), splits.labelled("test")
    num_labels = int(y.max()) + 1
    labelled = few(y, 10)
    repeats = max(1, len(x) // (5 * len(labelled)))  # one datum in six has a label
    print(f"{len(x)} data of {name}, {len(labelled)} of them with a label")

    vae = pv.ConditionalVAE(
        splits.data_shape,
        latent_dim=8 if quick else 50,
        condition_dim=num_labels,
        encoder=net,
        decoder=net,
        joint=net,
        classifier=net,
        # 0.1 N for each labelled datum, as in the paper, over its repetitions.
        classification_weight=0.1 * len(x) / repeats,
    )
    pv.fit(
        vae.joint_model,
        vae.joint_guide,
        mixed(x, y, labelled, repeats),
        estimator=TraceEnum_ELBO(max_plate_nesting=1),
        epochs=epochs,
        batch_size=200,
        lr=3e-3 if quick else 3e-4,
        seed=given.seed,
    )
    plain = alone(x[labelled], y[labelled], net, num_labels)(test).argmax(1)
    for text, found in (("labelled data alone", plain), ("all data", vae.classify(test).argmax(1))):
        print(f"{text}: {(found != truth).float().mean():.2%} of {len(test)} test labels wrong")
    if not quick:
        print("Kingma et al. (2014), M2: 11.97 %")


if __name__ == "__main__":
    main()
