"""Single-cell counts: Poisson, negative binomial or zero-inflated? Held-out likelihood decides.

The data are 2,100 cells of mouse bladder (Han et al., 2018) and their most expressed genes. How
many molecules a cell gives is mostly technical. So every model is given each cell's total
(``exposure="total"``), and its decoder says only how the molecules divide among genes. All three
models are then distributions of the same counts given the same totals, and can be compared cell by
cell.

    python examples/counts.py
    python examples/counts.py --quick

The file ``scrna_mouse_bladder.npz`` in ``$PYROVAE_DATA`` holds sparse rows in the arrays ``data``,
``indices``, ``indptr`` and ``shape``.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from scipy import sparse

import pyrovae as pv
from pyrovae import likelihoods, nets

LIKELIHOODS = {
    "Poisson": likelihoods.Poisson(exposure="total"),
    "negative binomial": likelihoods.NegativeBinomial(exposure="total"),
    "zero-inflated": likelihoods.ZeroInflatedNegativeBinomial(exposure="total"),
}


def load(num_genes, seed):
    """Train, validation and test cells of the genes with most training counts."""
    path = Path(os.environ.get("PYROVAE_DATA", ".")) / "scrna_mouse_bladder.npz"
    if not path.is_file():
        raise SystemExit(f"There is no file {path}. The first lines of this script describe it.")
    with np.load(path) as file:
        rows = sparse.csr_matrix((file["data"], file["indices"], file["indptr"]), file["shape"])
    cells = torch.from_numpy(rows.toarray().astype(np.float32))
    cells = cells[torch.randperm(len(cells), generator=torch.Generator().manual_seed(seed))]
    genes = cells[:1500].sum(0).argsort(descending=True)[:num_genes]
    return cells[:, genes].split([1500, 200, 400])


def compare(num_genes=500, epochs=200, num_particles=1_000, seed=0):
    """Train a VAE with each likelihood; the evidence of the test cells by name."""
    train, valid, test = load(num_genes, seed)
    evidence = {}
    for name, likelihood in LIKELIHOODS.items():
        torch.manual_seed(seed)
        vae = pv.VAE(
            num_genes, latent_dim=10, likelihood=likelihood, encoder=nets.Log1p(nets.MLP(128)),
            decoder=nets.MLP(128),
        ).initialize_from(train)  # fmt: skip
        vae.fit(train, valid=valid, epochs=epochs, patience=20, seed=seed)
        evidence[name] = vae.log_marginal(test, num_particles=num_particles, seed=seed)
    return evidence


def main(quick, seed):
    found = compare(*((40, 2, 20) if quick else ()), seed=seed)
    poisson = found["Poisson"].log_marginal.values
    print(f"{'likelihood':>20}{'log p(x | total), nats a cell':>32}{'more than Poisson':>24}")
    for name, evidence in found.items():
        gain = evidence.log_marginal.values - poisson
        error = gain.std(ddof=1) / len(gain) ** 0.5
        print(f"{name:>20}{evidence.mean():>32.2f}{gain.mean():>16.2f} ± {error:.2f}")
    print("\n± is the standard error over cells. One split and one training seed.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    parser.add_argument("--seed", type=int, default=0, help="of split, training and evidence")
    given = parser.parse_args()
    main(given.quick, given.seed)
