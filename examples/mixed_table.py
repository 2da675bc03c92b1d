"""A table with numbers, whole numbers, texts and empty cells: train, evaluate, fill in.

The table holds chemical analyses of 178 wines (scikit-learn) and their growers as texts. One cell
in five is made empty. ``Columns.infer`` gives each column a likelihood by its type. Empty cells are
integrated out in training and evaluation, and drawn given the others by ``impute``. The script
compares the imputed cells of held-out wines with the cells that were removed, and with the guess by
a column's mean or its most frequent text.

    python examples/mixed_table.py
    python examples/mixed_table.py --quick
"""

import argparse

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_wine

import pyrovae as pv
from pyrovae import likelihoods, nets


def tables(seed=0):
    """Training, validation and test wines with empty cells, and the test wines whole."""
    wine = load_wine(as_frame=True)
    frame = wine.data.astype({"magnesium": int})
    frame["grower"] = wine.target.map({0: "first", 1: "second", 2: "third"})
    frame = frame.sample(frac=1, random_state=seed, ignore_index=True)
    empty = np.random.default_rng(seed).random(frame.shape) < 0.2
    gappy = frame.mask(empty)
    return gappy[:90], gappy[90:120], gappy[120:], frame[120:]


def fill_in(epochs=300, num_particles=1_000, seed=0):
    """Evidence of the held-out rows, and of each column the error of imputations and guesses."""
    train, valid, gappy, whole = tables(seed)
    likelihood = likelihoods.Columns.infer(train)
    torch.manual_seed(seed)
    vae = pv.VAE(
        likelihood.data_shape, 3, likelihood=likelihood, encoder=nets.MLP(50), decoder=nets.MLP(50)
    )
    vae.initialize_from(train)  # counts start at their mean
    vae.fit(train, valid=valid, epochs=epochs, lr=3e-3, batch_size=30, patience=50, seed=seed)
    evidence = vae.log_marginal(gappy, num_particles=num_particles)
    draws = vae.impute(gappy, num_draws=50, num_particles=num_particles).draws
    rows = {}
    for name, column in train.items():
        removed = gappy[name].isna()
        truth = whole[name][removed]
        drawn = pd.concat([draw[name] for draw in draws], axis=1)[removed]
        if name == "grower":
            guesses = drawn.mode(axis=1)[0], column.mode()[0]
            rows[name] = [(guess != truth).mean() for guess in guesses]
        else:
            guesses = drawn.mean(axis=1), column.mean()
            rows[name] = [((g - truth) ** 2).mean() ** 0.5 / column.std() for g in guesses]
    return evidence, pd.DataFrame(rows, index=["imputed", "guessed"]).T


def main(quick):
    evidence, errors = fill_in(**({"epochs": 2, "num_particles": 50} if quick else {}))
    print(evidence)
    print("\nError of removed cells: share of wrong texts; of numbers the root mean square, in")
    print("standard deviations of the column")
    print(errors.round(2))
    print(f"mean over the columns of numbers: {errors.drop('grower').mean().round(2).to_dict()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    main(parser.parse_args().quick)
