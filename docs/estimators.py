"""Measure the two tables of docs/choosing_an_estimator.md, and print them: about four minutes.

python docs/estimators.py
python docs/estimators.py --quick
"""

import argparse
import math
from collections.abc import Iterable, Sequence

import torch

import pyrovae as pv
from pyrovae import estimators, nets
from pyrovae.compare import EstimatorComparison

SINGLE = {
    "ELBO": estimators.ELBO(),
    "STL": estimators.STL(),
    "IWAE": estimators.IWAE(),
    "DReG": estimators.DReG(),
    "VIMCO": estimators.VIMCO(),
    "RWS": estimators.RWS(),
    "RWSDReG": estimators.RWSDReG(),
    "PIWAE(4, K/4)": estimators.PIWAE(num_bounds=4),
    "TVO": estimators.TVO(),
}
GROWING = {**SINGLE, "MIWAE(4, K/4)": estimators.MIWAE(num_bounds=4)}
TRAINED = {
    **SINGLE,
    "AnalyticKL": estimators.AnalyticKL(),
    "ScoreELBO": estimators.ScoreELBO(),
    "STLIWAE": estimators.STLIWAE(),
    "Renyi(0.5)": estimators.Renyi(0.5),
    "CIWAE(0.5)": estimators.CIWAE(0.5),
    "Jackknife(1)": estimators.Jackknife(1),
}


def growing(counts: Sequence[int], replicates: int) -> EstimatorComparison:
    """Gradients at one datum of a linear Gaussian model, whose guide is shifted and too wide."""
    oracle = pv.testing.LinearGaussian(shift=0.3, stretch=1.15)
    x = oracle.sample(1).repeat(200, 1)
    return pv.compare_estimators(
        oracle.model, oracle.guide, x, GROWING, num_particles=counts, num_replicates=replicates,
        reference=oracle.log_prob(x), gradient_reference=False,
    )  # fmt: skip


def trained(epochs: int, num: int, replicates: int, reference: int) -> EstimatorComparison:
    """Bounds and gradients at the weights of a VAE of digits, trained with the ELBO."""
    digits = pv.data.load("digits").binarize("threshold")
    torch.manual_seed(0)
    vae = pv.VAE(digits.data_shape, 8, encoder=nets.MLP(100), decoder=nets.MLP(100))
    vae.fit(digits.train, estimator=estimators.ELBO(), epochs=epochs, lr=2e-3, seed=0)
    return pv.compare_estimators(
        vae.model, vae.guide, digits.test[:num], TRAINED, num_particles=(1, 8, 64),
        num_replicates=replicates, reference_particles=reference,
    )  # fmt: skip


def show(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table in Markdown."""
    for cells in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(cells)} |")
    print()


def show_growing(found: EstimatorComparison) -> None:
    slopes, last = found.slopes(), found.dataset["snr"].isel(num_particles=-1)
    last_count = int(found.dataset["num_particles"][-1])
    rows = []
    for name in GROWING:
        slope = slopes.sel(estimator=name)
        shown = [f"{float(slope.sel(group=group)):.2f}" for group in ("model", "guide")]
        snr = float(last.sel(estimator=name, group="guide"))
        rows.append([name, *shown, f"{float(f'{snr:.2g}'):g}"])
    show(["", "slope, model", "slope, guide", f"SNR of the guide, K = {last_count}"], rows)


def show_trained(found: EstimatorComparison) -> None:
    table = found.dataset
    attrs = table.attrs
    print(f"log p(x) = {attrs['log_marginal']:.3f} ± {attrs['log_marginal_error']:.1g}\n")
    rows = []
    for name in TRAINED:
        bounds = table["bound"].sel(estimator=name).values[1:]
        row = table.sel(estimator=name, group="guide")
        snr, off, z = (row[key].values for key in ("snr", "gradient_bias", "gradient_bias_z"))
        rows.append([name, *(f"{bound:.3f}" for bound in bounds), *map(_snr, snr), _bias(off, z)])
    head = ["", "bound, K = 8", "K = 64", "guide SNR, K = 1", "K = 8", "K = 64", "largest z"]
    show(head, rows)


def _snr(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


def _bias(off: Sequence[float], z: Sequence[float]) -> str:
    known = [(score, share) for share, score in zip(off, z, strict=True) if not math.isnan(score)]
    if not known:
        return ""
    score, share = max(known)
    shown = f"{round(score, 1) + 0.0:.1f}"
    return shown if score < 4 else f"**{score:.0f}**: off by {share:.1f} times the gradient"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    quick = parser.parse_args().quick
    show_growing(growing((4, 16) if quick else (4, 16, 64, 256), 4 if quick else 100))
    show_trained(trained(2, 5, 4, 50) if quick else trained(40, 50, 200, 5_000))
