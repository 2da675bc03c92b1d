"""Clusters of digits without labels, by a VAE whose prior is a mixture.

The component of a digit's z is its cluster. Labels are used only to judge the clusters at the end,
by the adjusted Rand index: 1 for the true classes, 0 for chance. Beside it stands k-means on the
pixels. The result depends on the start. So the components start at clusters of codes, as in Jiang
et al. (2017, arXiv:1611.05148), and each method has three seeds. The seed is chosen without labels:
by the validation bound, and by the inertia of k-means.

    python examples/clustering.py
    python examples/clustering.py --quick
"""

import argparse

import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

import pyrovae as pv
from pyrovae import nets


def mixture(digits, test, seed, epochs):
    """The validation bound, and the cluster of each test digit."""
    torch.manual_seed(seed)
    vae = pv.ClusteringVAE(
        digits.data_shape, latent_dim=8, num_clusters=10, encoder=nets.MLP(100),
        decoder=nets.MLP(100),
    )  # fmt: skip
    vae.fit(digits.train, beta=0.1, epochs=min(epochs, 30), lr=2e-3, seed=seed)
    start = KMeans(10, n_init=10, random_state=seed).fit(vae.embed(digits.train))
    with torch.no_grad():
        vae.prior.locs.copy_(torch.as_tensor(start.cluster_centers_))
    history = vae.fit(
        digits.train, valid=digits.valid, epochs=epochs, lr=2e-3, patience=20, seed=seed
    )
    return history["valid_bound"].max(), vae.cluster(test).argmax(1)


def k_means(digits, test, seed):
    """Minus the inertia, and the cluster of each test digit."""
    found = KMeans(10, n_init=1, random_state=seed).fit(digits.train.flatten(1))
    return -found.inertia_, torch.as_tensor(found.predict(test.flatten(1)))


def main(quick):
    digits = pv.data.load("digits").binarize("threshold")
    test, labels = digits.labelled("test")
    seeds = range(1 if quick else 3)
    runs = {
        "mixture VAE": [mixture(digits, test, seed, 1 if quick else 200) for seed in seeds],
        "k-means": [k_means(digits, test, seed) for seed in seeds],
    }
    print(f"Adjusted Rand index on {len(test)} held-out digits\n")
    print(f"{'':>12}{'chosen seed':>13}{'lowest':>9}{'highest':>9}")
    for name, found in runs.items():
        scores = [adjusted_rand_score(labels, clusters) for _, clusters in found]
        chosen = scores[max(seeds, key=lambda seed: found[seed][0])]
        print(f"{name:>12}{chosen:>13.2f}{min(scores):>9.2f}{max(scores):>9.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    main(parser.parse_args().quick)
