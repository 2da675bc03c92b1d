"""Comparison of float32 results with mpmath, to the rounding of the terms that
they are summed of.
"""

import mpmath as mp
import torch
from torch import Tensor

EPS = torch.finfo(torch.float32).eps
ROUNDINGS = 16
LARGEST, SMALLEST = 3e38, 2e-38
"""About the ends of float32's normal numbers."""


def exact(tensor: Tensor):
    """A tensor's numbers in mpmath, nested as they are."""
    if tensor.dim() == 0:
        return mp.mpf(tensor.item())
    return [exact(row) for row in tensor]


def assert_rounded(
    found: Tensor, truth, terms, roundings: int = ROUNDINGS, eps: float = EPS
) -> None:
    """Within some roundings of the sizes of the terms that the number is a sum of."""
    size, error = sum(abs(term) for term in terms), mp.mpf(found.item()) - truth
    assert abs(error) <= roundings * eps * size + mp.mpf(SMALLEST), (float(error), float(truth))
