"""Grey values in [0, 1] to black and white."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.data.rows import Rows, generator_of

__all__ = ["binarize", "resample"]


def binarize(x: Any, how: str = "threshold", *, threshold: float = 0.5, seed: int = 0) -> Any:
    """Black and white pixels, 0 or 1, from grey values in [0, 1].

    The result depends on the arguments alone, not on the state of any random generator: the same
    data binarised twice are the same data.

    Args:
        x: Grey values, a tensor of any shape; or rows, which are binarised as they are read. Of
            these each datum has random numbers of its own.
        how: ``"threshold"``: 1 where x >= threshold; ``"stochastic"``: 1 with probability x.
        threshold: For ``"threshold"``.
        seed: For ``"stochastic"``.

    Raises:
        ValueError: If x leaves [0, 1], or ``how`` is another word.

    References:
        On the Quantitative Analysis of Deep Belief Networks (Salakhutdinov and Murray, 2008), for
        MNIST drawn once with the grey values as probabilities.

    >>> binarize(torch.tensor([0.2, 0.5, 0.9]))
    tensor([0., 1., 1.])
    """
    if how not in ("threshold", "stochastic"):
        raise ValueError(f"how must be 'threshold' or 'stochastic', found {how!r}.")
    if isinstance(x, Rows):
        if how == "threshold":
            return x.map(lambda some, _: binarize(some, threshold=threshold))
        return x.map(lambda some, numbers: _drawn(some, numbers, seed))
    x = torch.as_tensor(x)
    _check_unit(x)
    if how == "threshold":
        return (x >= threshold).to(x.dtype)
    return torch.bernoulli(x, generator=torch.Generator(x.device).manual_seed(seed))


def _drawn(x: Tensor, numbers: np.ndarray, seed: int) -> Tensor:
    _check_unit(x)
    each = zip(x, numbers, strict=True)
    return torch.stack([torch.bernoulli(row, generator=generator_of(seed, n)) for row, n in each])


def resample(x: Tensor, *rest: Tensor) -> Any:
    """A fresh black and white version of a batch of grey values: 1 with probability x.

    Further arguments of the programs, such as labels, are handed on as they are.

    Given to :func:`pyrovae.fit` as ``transform=``, this is dynamic binarisation: training images
    are drawn anew for each batch. It uses torch's global generator, so it follows the seed of the
    training.

    References:
        Importance Weighted Autoencoders (Burda et al., 2016), section 5, on images binarised anew
        for each batch, `arXiv:1509.00519 <https://arxiv.org/abs/1509.00519>`_.

    >>> resample(torch.tensor([0.0, 1.0]))
    tensor([0., 1.])
    """
    return (torch.bernoulli(x), *rest) if rest else torch.bernoulli(x)


resample.capturable = True  # type: ignore[attr-defined]  # a function of tensors alone: fit puts it into the captured step


def _check_unit(x: Tensor) -> None:
    if not x.is_floating_point():
        raise ValueError(
            f"Binarisation takes floating-point grey values in [0, 1], found {x.dtype}. Divide "
            "first."
        )
    # Written so that NaN fails too.
    if x.numel() and not bool(((x >= 0) & (x <= 1)).all()):
        raise ValueError(
            f"Binarisation takes grey values in [0, 1], found values from {x.min().item():.4g} to "
            f"{x.max().item():.4g}. Divide integer grey levels by the largest level."
        )
