"""Sequences of tokens: names in Python's standard library, letter by letter.

    python examples/sequences.py
    python examples/sequences.py --quick

Each name is twelve tokens, of 26 letters and an end. The likelihood is categorical over tokens, and
both networks are convolutions along the name. The script prints held-out log p(name), that of
letters drawn independently by their frequencies, and names that the model draws.
"""

import argparse
import builtins
import math
import sys

import torch

import pyrovae as pv
from pyrovae import estimators, likelihoods, nets

LENGTH = 12
LETTERS = "abcdefghijklmnopqrstuvwxyz_"  # the last one ends a name
LAST = len(LETTERS) - 1


def names():
    """Words of lower-case letters in the names of the standard library, in alphabetical order."""
    found = set()
    for module in (builtins, sys, math, *(sys.modules[name] for name in sorted(sys.modules)
                                          if name in sys.stdlib_module_names)):  # fmt: skip
        for name in dir(module):
            found |= {word for word in name.lower().split("_") if word}
    fit = (word for word in found if word.isalpha() and word.isascii())
    return sorted(word for word in fit if 3 <= len(word) <= LENGTH)


def tokens(words):
    """``(N, LENGTH)``: token k as k / 26, the convention of ``likelihoods.Categorical``."""
    padded = [word.ljust(LENGTH, LETTERS[-1]) for word in words]
    return torch.tensor([[LETTERS.index(letter) / LAST for letter in word] for word in padded])


def text(x):
    return ["".join(LETTERS[round(k)] for k in row).rstrip("_") for row in (x * LAST).tolist()]


def main(quick):
    torch.manual_seed(0)
    x = tokens(names())
    x = x[torch.randperm(len(x))]
    test, train = x[: len(x) // 5], x[len(x) // 5 :]
    print(f"{len(train)} names to train on, {len(test)} held out")

    vae = pv.VAE(
        (LENGTH,),
        latent_dim=16,
        likelihood=likelihoods.Categorical(len(LETTERS)),
        encoder=nets.OneHot(len(LETTERS), nets.Conv(64, 64, hidden=128, dims=1)),
        decoder=nets.Conv(64, 64, hidden=128, dims=1),
    )
    vae.fit(train, estimator=estimators.IWAE(5), epochs=1 if quick else 60, lr=2e-3)
    evidence = vae.log_marginal(test, num_particles=20 if quick else 1_000)

    counts = torch.stack([(train * LAST).round() == k for k in range(LAST + 1)]).sum(1) + 1.0
    frequency = (counts / counts.sum(0)).log()  # (tokens, LENGTH)
    index = (test * LAST).round().long()
    plain = frequency.gather(0, index).sum(1).mean().item()
    print(f"held-out log p(name): {evidence.mean():.2f} nats; letters by frequency: {plain:.2f}")
    print("drawn:", ", ".join(text(vae.sample(12, temperature=0.8))))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    main(parser.parse_args().quick)
