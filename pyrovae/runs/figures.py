"""The figures of a run, as PNG files."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "axes_figure",
    "evidence_figure",
    "image_grid",
    "is_image",
    "learning_curve",
    "reconstruction_grid",
    "sandwich_figure",
    "span",
]

_WIDTH = 640  # pixels that a grid is enlarged towards


def is_image(shape: Sequence[int]) -> bool:
    """Whether data of this shape can be shown: ``(H, W)``, ``(1, H, W)`` or ``(3, H, W)``, at least
    4 x 4.
    """
    spatial = len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))
    return spatial and min(shape[-2:]) >= 4


def span(x: Tensor) -> tuple[float, float]:
    """What to show as black and white: [0, 1] where data lie in it, else their range."""
    low, high = float(x.min()), float(x.max())
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)


def image_grid(
    images: Tensor, path: Path, *, columns: int = 8, low: float = 0.0, high: float = 1.0
) -> None:
    """Images in rows as one PNG, enlarged by a whole factor so that single pixels stay square.

    Args:
        images: ``(N, *data_shape)`` with :func:`is_image` shapes.
        path: Where to write.
        columns: Images in a row.
        low, high: Values shown black and white; what is beyond is clipped.
    """
    from PIL import Image
    from torchvision.utils import make_grid

    pixels = ((images.detach().cpu().float() - low) / max(high - low, 1e-12)).clamp(0, 1)
    pixels = pixels.unsqueeze(1) if pixels.dim() == 3 else pixels
    pixels = pixels.expand(-1, 3, -1, -1)
    width = columns * pixels.shape[-1]
    zoom = max(1, round(_WIDTH / width))
    pixels = pixels.repeat_interleave(zoom, -1).repeat_interleave(zoom, -2)
    grid = make_grid(pixels, nrow=columns, padding=max(2, zoom // 2), pad_value=0.5)
    array = (grid * 255).round().to(torch.uint8).movedim(0, -1).numpy()
    Image.fromarray(array).save(path)


def reconstruction_grid(
    data: Tensor, reconstructions: Tensor, path: Path, *, columns: int = 10, **span: float
) -> None:
    """Pairs of rows: data above, their reconstructions below."""
    rows = zip(data.split(columns), reconstructions.split(columns), strict=True)
    image_grid(torch.cat([part for row in rows for part in row]), path, columns=columns, **span)


def learning_curve(
    rows: Sequence[Mapping[str, float]], path: Path, *, best_epoch: int | None = None
) -> None:
    """Bounds over epochs, and below them the two terms of the ELBO, as a PNG.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    # A figure of its own, not pyplot's: no backend is chosen and no state is left behind.
    figure = Figure(figsize=(7, 6), dpi=120, layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 2))
    epochs = [row["epoch"] for row in rows]
    above.plot(epochs, [row["train_bound"] for row in rows], label="training")
    if any(math.isfinite(row["valid_bound"]) for row in rows):
        above.plot(epochs, [row["valid_bound"] for row in rows], label="validation")
    if best_epoch is not None:
        above.axvline(
            best_epoch, color="0.6", linestyle=":", label=f"weights kept (epoch {best_epoch})"
        )
    above.set_ylabel("bound, nats per datum")
    _zoom_in(above, [row["train_bound"] for row in rows])
    above.legend()
    below.plot(epochs, [-row["reconstruction"] for row in rows], label="-reconstruction")
    below.plot(epochs, [row["kl"] for row in rows], label="KL")
    below.set(xlabel="epoch", ylabel="nats per datum", yscale="log")
    below.legend()
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def evidence_figure(evidence: Any, path: Path) -> None:
    """log p(x) of the data in order, with two standard errors, beside their Pareto k, as a PNG.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    order = np.argsort(evidence.log_marginal.values)
    values, errors = evidence.log_marginal.values[order], 2 * evidence.standard_error.values[order]
    left.errorbar(np.arange(len(values)), values, errors, fmt=".", markersize=3, linewidth=0.8)
    left.axhline(evidence.mean(), color="0.6", linestyle=":", label=f"mean {evidence.mean():.2f}")
    left.set(xlabel="data, in order", ylabel="log p(x), nats")
    left.legend()
    k = evidence.pareto_k.values if "pareto_k" in evidence.dataset else np.empty(0)
    if np.isfinite(k).any():
        right.hist(np.clip(k[np.isfinite(k)], -0.5, 1.5), bins=np.linspace(-0.5, 1.5, 41))
        right.axvline(0.7, color="tab:red", linestyle=":")
        right.set(xlabel="Pareto k", ylabel="data")
        right.set_title(
            f"{evidence.share_flagged:.1%} of data above 0.7", fontsize=10, color="tab:red"
        )
    else:
        right.set_axis_off()
        right.set_title("no diagnosis by Pareto k", fontsize=10, color="0.4")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def sandwich_figure(sandwich: Any, path: Path) -> None:
    """Lower and upper estimates of log p(x) of simulated data, less the lower ones' own, as a PNG.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    gap = sandwich.gap.values
    order = np.argsort(gap)
    place = np.arange(len(gap))
    axes.vlines(place, np.minimum(gap[order], 0), np.maximum(gap[order], 0), color="0.8")
    below, above = (
        2 * side.standard_error.values[order] for side in (sandwich.below, sandwich.above)
    )
    for name, height, error in (
        ("from below", np.zeros(len(gap)), below),
        ("from above", gap[order], above),
    ):
        axes.errorbar(place, height, error, fmt=".", markersize=5, linewidth=0.8, label=name)
    axes.axhline(gap.mean(), color="0.6", linestyle=":", label=f"mean gap {gap.mean():.3g}")
    axes.set(xlabel="simulated data, by gap", ylabel="log p(x) less its lower estimate, nats")
    axes.legend(loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def axes_figure(draw: Callable[[Any], Any], path: Path) -> None:
    """What a function draws on the axes it is given, as a PNG.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    draw(figure.subplots())
    figure.savefig(path)


def _zoom_in(axes: Any, values: Sequence[float]) -> None:
    """Let the first steep tenth of the curve leave the frame: what matters comes after."""
    if len(values) >= 20:
        late = values[len(values) // 10 :]
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, min(late) - 0.15 * (max(late) - min(late))), high)
