r"""Grey levels to real numbers, so that a density can be compared with a probability of levels.

A density can be infinite at the levels, so its bits per dimension on the levels themselves mean
nothing. With uniform noise u in [0, 1) added to level k of L, :math:`y = (k + u) / L`, and D
elements, Jensen's inequality gives

.. math:: \log P(k) = \log \int_{[0, 1)^D} p\Big(\frac{k + u}{L}\Big) \frac{du}{L^D}
          \ge E_u\Big[\log p\Big(\frac{k + u}{L}\Big)\Big] - D \log L.

The log-density of dequantised data, with ``data_scale=1 / L`` for bits per dimension, is thus in
expectation a lower bound on the log-probability of the levels.

References:
    A note on the evaluation of generative models (Theis et al., 2016), section 3.1,
    `arXiv:1511.01844 <https://arxiv.org/abs/1511.01844>`_.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.data.rows import Rows, generator_of
from pyrovae.declare import Declared, is_count

__all__ = ["Dequantize", "dequantize"]


def dequantize(x: Any, num_levels: int, *, seed: int = 0) -> Any:
    """Real numbers in [0, 1) from grey levels, by uniform noise within each level.

    The result depends on the arguments alone, so that held-out data are the same at every
    evaluation.

    Args:
        x: Grey levels, level k of L stored as k / (L - 1), a tensor of any shape; or rows, whose
            noise is added as they are read. Of these each datum has noise of its own.
        num_levels: The number L of levels.
        seed: Of the noise.

    Returns:
        (k + u) / L, which lies in cell k of L cells of equal width.

    Raises:
        ValueError: If num_levels is less than 2, or x holds something else than the levels.

    >>> y = dequantize(torch.tensor([0.0, 0.5, 1.0]), num_levels=3)
    >>> (y * 3).floor()
    tensor([0., 1., 2.])
    """
    transform = Dequantize(num_levels)
    if isinstance(x, Rows):

        def drawn(some: Tensor, numbers: np.ndarray) -> Tensor:
            transform.check(some)
            noise = [torch.rand(some.shape[1:], generator=generator_of(seed, n)) for n in numbers]
            return transform.cells(some, torch.stack(noise).to(some))

        return x.map(drawn)
    x = torch.as_tensor(x)
    transform.check(x)
    generator = torch.Generator(x.device).manual_seed(seed)
    noise = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return transform.cells(x, noise)


class Dequantize(Declared):
    """Fresh uniform noise for each training batch, as
    ``pyrovae.fit(..., transform=Dequantize(256))``.

    Further arguments of the programs, such as labels, are handed on unchanged. The noise comes from
    torch's global generator, so it follows the seed of the training.

    Args:
        num_levels: The number L of levels; level k is stored as k / (L - 1).

    Raises:
        ValueError: If num_levels is less than 2.

    >>> Dequantize(256)(torch.zeros(2, 3)).shape
    torch.Size([2, 3])
    """

    capturable = True  # a function of tensors alone: fit puts it into the captured step

    def __init__(self, num_levels: int):
        if not is_count(num_levels, 2):
            raise ValueError(f"num_levels must be an integer of 2 or more, found {num_levels!r}.")
        self.num_levels = num_levels

    def __call__(self, x: Tensor, *rest: Tensor) -> Any:
        y = self.cells(x, torch.rand_like(x))
        return (y, *rest) if rest else y

    def cells(self, x: Tensor, noise: Tensor) -> Tensor:
        """(k + u) / L for noise u in [0, 1)."""
        count = self.num_levels
        y = ((x * (count - 1)).round() + noise) / count
        # Rounding in float32 can lift the noise of the last cell to 1 itself.
        return y.clamp(max=1 - torch.finfo(x.dtype).eps / 2)

    def check(self, x: Tensor) -> None:
        """Raise an error if x holds something else than the levels.

        Raises:
            ValueError: If there is such a value; the message names the first one.
        """
        last = self.num_levels - 1
        levels = x * last
        # Written so that NaN fails too.
        inside = (x >= 0) & (x <= 1) & ((levels - levels.round()).abs() < 0.01)
        if not bool(inside.all()):
            raise ValueError(
                f"dequantize takes the levels 0, 1/{last}, ..., 1, found "
                f"{x[~inside][0].item():.6g}. Give the num_levels that the data have: 256 for "
                "8-bit images, 17 for scikit-learn's digits."
            )
