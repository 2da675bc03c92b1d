"""Normal, Laplace and Student-t elements."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import constraints

from pyrovae.distributions.base import double
from pyrovae.distributions.elementwise import Elementwise
from pyrovae.distributions.special import log_one_plus_square, stirling_error

__all__ = ["FittedNormal", "Laplace", "Normal", "StudentT"]


class _LocationScale(Elementwise):
    support = constraints.real
    loc: Tensor
    scale: Tensor

    @property
    def mean(self) -> Tensor:
        return self.loc.expand(self._batch_shape)


class Normal(_LocationScale):
    r"""Normal elements.

    .. math:: \log p(x) = -\frac12 ((x - \mu) / \sigma)^2 - \log\sigma - \frac12\log 2\pi
    """

    def __init__(self, loc: Tensor, scale: Tensor):
        super().__init__(loc=loc, scale=scale)

    def density(self, value: Tensor) -> Tensor:
        offset = self.scale.log() + 0.5 * math.log(2 * math.pi)
        return ((value - self.loc) / self.scale).square() * -0.5 - offset

    def draw(self, loc: Tensor, scale: Tensor) -> Tensor:
        return torch.normal(loc, scale)

    @property
    def variance(self) -> Tensor:
        return self.scale.square().expand(self._batch_shape)


class FittedNormal(Normal):
    r"""Normal elements that are scored under the one scale that suits them all best.

    .. math:: \sigma^2 = \operatorname{mean} (x - \mu)^2

    over every element of the call. This is no density, since the scale has seen x. The gradient
    with respect to the fitted scale is zero, so it is left out.

    Args:
        loc: Location.
        scale: What draws and moments use.
        min_scale: Lower limit of the fitted scale.
        report: Called with the fitted variance, a detached scalar.
    """

    def __init__(
        self, loc: Tensor, scale: Tensor, min_scale: float, report: Callable[[Tensor], None]
    ):
        super().__init__(loc, scale)
        self.min_scale, self.report = min_scale, report

    def density(self, value: Tensor) -> Tensor:
        squares = (value - self.loc).square()
        variance = squares.detach().mean().clamp(min=self.min_scale**2)
        self.report(variance)
        return -0.5 * (squares / variance + (2 * math.pi * variance).log())


class Laplace(_LocationScale):
    r"""Laplace elements.

    .. math:: \log p(x) = -|x - \mu| / b - \log 2b
    """

    def __init__(self, loc: Tensor, scale: Tensor):
        super().__init__(loc=loc, scale=scale)

    def density(self, value: Tensor) -> Tensor:
        return (value - self.loc).abs() / -self.scale - (self.scale.log() + math.log(2))

    def draw(self, loc: Tensor, scale: Tensor) -> Tensor:
        # The difference of two exponentials has no logarithm of zero to avoid.
        spread = torch.empty_like(loc).exponential_() - torch.empty_like(loc).exponential_()
        return loc + scale * spread

    @property
    def variance(self) -> Tensor:
        return (2 * self.scale.square()).expand(self._batch_shape)


class StudentT(_LocationScale):
    r"""Student-t elements.

    .. math:: \log p(x) = -\frac{\nu + 1}2 \log(1 + t^2/\nu) - \log\sigma - \log B(\tfrac12,
              \tfrac\nu2)
              - \tfrac12\log\nu, \qquad t = (x - \mu)/\sigma

    The mean exists for :math:`\nu > 1` and the variance for :math:`\nu > 2`; elsewhere they are NaN
    and infinite.
    """

    df: Tensor

    def __init__(self, df: Tensor, loc: Tensor, scale: Tensor):
        super().__init__(df=df, loc=loc, scale=scale)

    def density(self, value: Tensor) -> Tensor:
        # In double precision, as one rounding is shared by all elements, and df is usually one
        # number.
        half = 0.5 * double(self.df)
        gammas = half * torch.log1p(0.5 / half) - 0.5
        gammas = gammas + stirling_error(half + 0.5) - stirling_error(half)
        offset = (gammas - 0.5 * math.log(2 * math.pi)).to(self.df.dtype) - self.scale.log()
        t = (value - self.loc) / self.scale / self.df.sqrt()
        return offset - 0.5 * (self.df + 1) * log_one_plus_square(t)

    def draw(self, df: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        gamma = torch.distributions.Gamma(0.5 * df, torch.ones_like(df), validate_args=False)
        chi2 = 2 * gamma.sample()
        return loc + scale * torch.randn_like(loc) * (df / chi2).sqrt()

    @property
    def mean(self) -> Tensor:
        return torch.where(self.df > 1, self.loc, torch.nan).expand(self._batch_shape)

    @property
    def variance(self) -> Tensor:
        ratio = torch.where(self.df > 2, self.df / (self.df - 2), torch.inf)
        return (ratio * self.scale.square()).expand(self._batch_shape)
