"""Draw the picture of README.md, which takes about 20 seconds: ``python docs/figures.py``."""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

import pyrovae as pv
from pyrovae import estimators, likelihoods, nets

FIGURES = Path(__file__).parent / "figures"
COLUMNS, ROWS = 14, 2
SHOWN = COLUMNS * ROWS


def train() -> dict[str, Tensor]:
    """Images by caption: held-out digits, their reconstructions, and samples."""
    digits = pv.data.load("digits")
    torch.manual_seed(0)
    vae = pv.VAE(
        digits.data_shape,
        latent_dim=12,
        likelihood=likelihoods.DiscretizedLogistic(num_levels=17),
        encoder=nets.MLP(200, 200),
        decoder=nets.MLP(200, 200),
    )
    vae.initialize_from(digits.train)
    vae.fit(
        digits.train,
        valid=digits.valid,
        estimator=estimators.DReG(num_particles=5),
        epochs=150,
        patience=30,
        compile=False,
    )
    vae.eval()
    torch.manual_seed(1)
    data = digits.test[:SHOWN]
    return {
        "Held-out data": data,
        "Reconstructions": vae.reconstruct(data),
        "Samples": vae.sample(SHOWN, mean=True),
    }


def draw(panels: dict[str, Tensor], path: Path) -> None:
    """The images of each panel in rows, with the caption above them."""
    with pv.plots.style():
        figure = Figure(figsize=(7.5, 4.2), layout="constrained")
        for axes, (caption, images) in zip(
            figure.subplots(len(panels), 1), panels.items(), strict=True
        ):
            pv.plots.samples(1 - images, axes, columns=COLUMNS, low=0.0, high=1.0)
            axes.set_title(caption)
        FIGURES.mkdir(exist_ok=True)
        figure.savefig(path, dpi=120)


if __name__ == "__main__":
    draw(train(), FIGURES / "digits.png")
