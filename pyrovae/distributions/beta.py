"""Beta distributions by their two concentrations."""

import math

import torch
from torch import Tensor
from torch.distributions import constraints

from pyrovae.distributions.deviances import beta_deviance
from pyrovae.distributions.elementwise import Elementwise
from pyrovae.distributions.special import log1p, stirling_error

__all__ = ["Beta", "OpenUnitInterval"]


class OpenUnitInterval(constraints.Constraint):
    """Numbers strictly between 0 and 1."""

    def check(self, value: Tensor) -> Tensor:
        return (value > 0) & (value < 1)


class Beta(Elementwise):
    r"""Beta elements, with a density on the open interval (0, 1).

    .. math:: p(x) = x^{a-1} (1-x)^{b-1} / B(a, b)

    Args:
        concentration1, concentration0: a and b, positive.
    """

    support = OpenUnitInterval()
    concentration1: Tensor
    concentration0: Tensor

    def __init__(self, concentration1: Tensor, concentration0: Tensor):
        super().__init__(concentration1=concentration1, concentration0=concentration0)

    def density(self, value: Tensor) -> Tensor:
        a, b = self.concentration1, self.concentration0
        n = a + b
        errors = stirling_error(n) - stirling_error(a) - stirling_error(b)
        # Roots, since the quotient of a and n itself may underflow.
        root = (a.sqrt() * (b.sqrt() / n.sqrt())).log()
        offset = errors + root - 0.5 * math.log(2 * math.pi)
        return offset - beta_deviance(a, b, value) - value.log() - log1p(-value)

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
