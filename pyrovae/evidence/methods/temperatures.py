"""Temperatures and step sizes of annealing."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["AnnealingPath", "even_out", "schedule"]


@dataclass(frozen=True)
class AnnealingPath:
    """What the warm-up fixes: temperatures ``(T + 1, B)`` and step sizes ``(T + 1, B)``."""

    betas: Tensor
    steps: Tensor


def schedule(shape: str, num: int, **kind: Any) -> Tensor:
    """T + 1 temperatures from 0 to 1."""
    even = torch.linspace(0, 1, num + 1, **kind)
    if shape == "linear":
        return even
    bent = torch.sigmoid(4 * (2 * even - 1))  # the slope of Wu et al.
    return (bent - bent[0]) / (bent[-1] - bent[0])


def even_out(path: AnnealingPath, spread: Tensor) -> AnnealingPath:
    """Temperatures between which the weights vary alike, and the step sizes there.

    The spread of the log ratio, integrated over beta, is cut into equal parts. A tenth of the steps
    keeps its place, against noise in the spread.
    """
    betas, steps, widths = (t.cpu().numpy() for t in (path.betas, path.steps, spread))
    num = len(betas) - 1
    width = max(1, num // 10)
    kernel = np.ones(2 * width + 1) / (2 * width + 1)
    even = np.linspace(0, 1, num + 1)
    new, moved = np.empty_like(betas), np.empty_like(steps)
    for b in range(betas.shape[1]):
        smooth = np.convolve(np.pad(widths[:, b], width, mode="edge"), kernel, mode="valid")
        parts = 0.5 * (smooth[1:] + smooth[:-1]) * np.diff(betas[:, b])
        share = np.full(num, 1 / num) if parts.sum() <= 0 else 0.9 * parts / parts.sum() + 0.1 / num
        new[:, b] = np.interp(even, np.concatenate([[0.0], np.cumsum(share)]), betas[:, b])
        moved[:, b] = np.interp(new[:, b], betas[:, b], steps[:, b])
    new[0], new[-1] = 0.0, 1.0
    return AnnealingPath(*(torch.as_tensor(array).to(path.betas) for array in (new, moved)))
