"""Single-cell counts: Poisson, negative binomial or zero-inflated? Held-out likelihood decides.

2,100 cells of mouse bladder (Han et al., 2018) and their most expressed genes. How many molecules a
cell gives is mostly technical, so every model is conditioned on each cell's total
(``exposure="total"``): the decoder says only how a cell's molecules divide among genes. All three
are then distributions of the same counts given the same totals, and their held-out log-likelihoods
can be set side by side, cell by cell.

The data file is ``scrna_mouse_bladder.npz``: sparse rows in the arrays ``data``, ``indices``,
``indptr``, ``shape``.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import pyrovae as pv
from pyrovae import likelihoods, nets

FOLDER = os.environ.get("PYROVAE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
LIKELIHOODS = {
    "Poisson": likelihoods.Poisson(exposure="total"),
    "negative binomial": likelihoods.NegativeBinomial(exposure="total"),
    "zero-inflated": likelihoods.ZeroInflatedNegativeBinomial(exposure="total"),
}


def load(path: str | Path, num_genes: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Train, validation and test cells, ``(1500 | 200 | 400, num_genes)``: the genes with most
    train counts.
    """
    with np.load(path, allow_pickle=False) as file:
        counts = np.zeros(file["shape"], np.float32)
        rows = np.repeat(np.arange(len(counts)), np.diff(file["indptr"]))
        counts[rows, file["indices"]] = file["data"]
    cells = torch.from_numpy(counts)[
        torch.randperm(len(counts), generator=torch.Generator().manual_seed(seed))
    ]
    genes = cells[:1500].sum(0).argsort(descending=True)[:num_genes]
    return tuple(cells[:, genes].split([1500, 200, 400]))


def compare(
    path: str | Path,
    num_genes: int = 500,
    epochs: int = 200,
    num_particles: int = 1000,
    seed: int = 0,
) -> dict[str, pv.Evidence]:
    """Train one VAE with each likelihood; the evidence of the test cells by name."""
    train, valid, test = load(path, num_genes, seed)
    evidence = {}
    for name, likelihood in LIKELIHOODS.items():
        torch.manual_seed(seed)
        vae = pv.VAE(
            (num_genes,),
            latent_dim=10,
            likelihood=likelihood,
            encoder=nets.Log1p(nets.MLP(128)),
            decoder=nets.MLP(128),
        ).initialize_from(train)
        pv.fit(vae.model, vae.guide, train, valid=valid, epochs=epochs, patience=20, seed=seed)
        evidence[name] = pv.log_marginal(
            vae.model, vae.guide, test, num_particles=num_particles, seed=seed
        )
    return evidence


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Which likelihood fits single-cell counts?")
    parser.add_argument(
        "--data", default=Path(FOLDER) / "scrna_mouse_bladder.npz", help="the data file"
    )
    parser.add_argument(
        "--smoke", action="store_true", help="a run of seconds that shows only that it runs"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the split, the training and the evidence"
    )
    options = parser.parse_args()
    small = {"num_genes": 40, "epochs": 2, "num_particles": 20} if options.smoke else {}
    results = compare(options.data, seed=options.seed, **small)
    poisson = results["Poisson"].log_marginal.values
    print(
        f"{'likelihood':>20}{'log p(x | total), nats a cell':>32}"
        f"{'less Poisson, s.e. over cells':>36}"
    )
    for label, found in results.items():
        gain = found.log_marginal.values - poisson
        error = gain.std(ddof=1) / len(gain) ** 0.5
        print(f"{label:>20}{found.mean():>32.2f}{gain.mean():>24.2f} +- {error:.2f}")
