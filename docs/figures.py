"""Draw the picture of README.md, which takes about 20 seconds: ``python docs/figures.py``."""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid

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
    figure = Figure(figsize=(9, 4.6), dpi=100, layout="constrained")
    for axes, (caption, images) in zip(
        figure.subplots(len(panels), 1), panels.items(), strict=True
    ):
        grid = make_grid(images[:, None].clamp(0, 1), nrow=COLUMNS, padding=1, pad_value=0.0)
        axes.imshow(1 - grid[0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(caption, loc="left", fontsize=13)
        axes.set_axis_off()
    FIGURES.mkdir(exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    draw(train(), FIGURES / "digits.png")
