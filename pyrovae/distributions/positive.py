"""Log-normal and gamma elements."""

import math

import torch
from torch import Tensor
from torch.distributions import constraints

from pyrovae.distributions.deviances import poisson_deviance
from pyrovae.distributions.elementwise import Elementwise
from pyrovae.distributions.special import stirling_error

__all__ = ["Gamma", "LogNormal"]


class LogNormal(Elementwise):
    r"""Elements whose logarithm is normal.

    .. math:: \log p(x) = \log N(\log x;\ \mu, \sigma^2) - \log x

    Args:
        loc, scale: Location :math:`\mu` and scale :math:`\sigma` of log x.
    """

    support = constraints.positive
    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor, scale: Tensor):
        super().__init__(loc=loc, scale=scale)

    def density(self, value: Tensor) -> Tensor:
        offset = self.scale.log() + 0.5 * math.log(2 * math.pi)
        deviation = _log_ratio(value, self.loc) / self.scale
        return deviation.square() * -0.5 - offset - value.log()

    def draw(self, loc: Tensor, scale: Tensor) -> Tensor:
        limits = torch.finfo(loc.dtype)
        return torch.normal(loc, scale).exp().clamp(limits.tiny, limits.max)

    @property
    def mean(self) -> Tensor:
        return (self.loc + 0.5 * self.scale.square()).exp().expand(self._batch_shape)


class Gamma(Elementwise):
    r"""Gamma elements by the logarithm of their mean and their concentration.

    .. math:: \log p(x) = a \log\frac a\mu - \log\Gamma(a) + (a - 1) \log x - \frac{a x}\mu

    It is computed as a deviance and a Stirling error, since the terms above cancel to many digits
    where a is large. The variance is :math:`\mu^2 / a`.

    Args:
        log_mean: :math:`\log\mu`.
        concentration: a, positive.
    """

    support = constraints.positive
    log_mean: Tensor
    concentration: Tensor

    def __init__(self, log_mean: Tensor, concentration: Tensor):
        super().__init__(log_mean=log_mean, concentration=concentration)

    def density(self, value: Tensor) -> Tensor:
        a = self.concentration
        peak = 0.5 * (a.log() - math.log(2 * math.pi)) - stirling_error(a) - value.log()
        ratio = _log_ratio(value, self.log_mean)
        return peak - a * poisson_deviance(ratio, torch.ones_like(ratio))

    def draw(self, log_mean: Tensor, concentration: Tensor) -> Tensor:
        gamma = torch.distributions.Gamma(
            concentration, torch.ones_like(concentration), validate_args=False
        )
        limits = torch.finfo(log_mean.dtype)
        draw = gamma.sample() * (log_mean - concentration.log()).exp()
        return draw.clamp(limits.tiny, limits.max)

    @property
    def mean(self) -> Tensor:
        return self.log_mean.exp().expand(self._batch_shape)


def _log_ratio(value: Tensor, log_mean: Tensor) -> Tensor:
    """log(value) - log_mean; near zero by the quotient, whose logarithm loses no digits there."""
    plain = value.log() - log_mean
    near = plain.abs() < 1
    quotient = torch.where(near, value, 1.0) * torch.where(near, -log_mean, 0.0).exp()
    return torch.where(near, quotient.log(), plain)
