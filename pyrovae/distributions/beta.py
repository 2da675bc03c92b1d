"""Beta elements by mean and concentration."""

import torch
from torch import Tensor
from torch.distributions import constraints

from pyrovae.distributions.elementwise import Elementwise

__all__ = ["Beta"]


class Beta(Elementwise):
    r"""Density on the open interval (0, 1), :math:`x^{a-1} (1-x)^{b-1} / B(a, b)`.

    Args:
        concentration1, concentration0: a and b, positive.
    """

    support = constraints.unit_interval
    concentration1: Tensor
    concentration0: Tensor

    def __init__(self, concentration1: Tensor, concentration0: Tensor):
        super().__init__(concentration1=concentration1, concentration0=concentration0)

    def density(self, value: Tensor) -> Tensor:
        a, b = self.concentration1, self.concentration0
        log_beta = torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
        return (a - 1) * value.log() + (b - 1) * torch.log1p(-value) - log_beta

    def draw(self, concentration1: Tensor, concentration0: Tensor) -> Tensor:
        draw = torch.distributions.Beta(
            concentration1, concentration0, validate_args=False
        ).sample()
        limits = torch.finfo(draw.dtype)
        return draw.clamp(limits.tiny, 1 - limits.eps)

    @property
    def mean(self) -> Tensor:
        a, b = self.concentration1, self.concentration0
        return (a / (a + b)).expand(self._batch_shape)
