"""Half deviances of counts and fractions, without cancellation, and their gradients.

The gradients are written by hand, since differentiating the branches of a piecewise formula would
bring the cancellation back.
"""

import math
from typing import Any

import torch
from torch import Tensor

from pyrovae.distributions.base import double
from pyrovae.distributions.special import is_single, log1p, series

__all__ = ["beta_deviance", "negative_binomial_deviance", "poisson_deviance"]

_NEAR = 0.5  # below this size of r, e^r - 1 - r is summed as a series
_EXP = tuple(1 / math.factorial(k) for k in range(2, 16))
_NEAR_LOG = 0.25  # likewise of y, y - log(1 + y)
_ATANH = tuple(1 / k for k in range(3, 21, 2))


def _softplus(t: Tensor) -> Tensor:
    """log(1 + e^t); its gradient comes from the callers."""
    return t.clamp(min=0) + log1p(torch.exp(-t.abs()))


def _exp_remainder(r: Tensor) -> Tensor:
    """(e^r - 1 - r) / r^2 for \\|r\\| < 1/2."""
    return series(r, _EXP[:8] if is_single(r) else _EXP)


def _log_remainder(y: Tensor) -> Tensor:
    """y - log(1 + y) for -1/4 < y < 1/3; its gradient comes from the callers."""
    z = y / (2 + y)  # log(1 + y) = 2 artanh(z), and y = 2 z + z y
    square = z.square()
    return z * (y - 2 * square * series(square, _ATANH[:4] if is_single(y) else _ATANH))


def _log_ratio(log_mean: Tensor, x: Tensor) -> Tensor:
    """log(mean) - log(x), or log(mean) at x = 0."""
    log = double(torch.where(x > 0, x, 1.0)).log()
    # Two numbers carry the logarithm of a count, so that the difference of near numbers keeps its
    # digits.
    high = log.to(log_mean.dtype)
    return (log_mean - high) - (log - double(high)).to(log_mean.dtype)


def poisson_deviance(log_mean: Tensor, x: Tensor) -> Tensor:
    r"""Half the deviance of a Poisson variable of mean :math:`\mu`.

    .. math:: x \log(x/\mu) + \mu - x \ge 0

    It is :math:`\mu` at x = 0.
    """
    result: Any = _PoissonDeviance.apply(log_mean, x)
    return result


class _PoissonDeviance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, log_mean: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(log_mean, x)
        r = _log_ratio(log_mean, x)
        near = (r.abs() < _NEAR) & (x > 0)
        small = torch.where(near, r, 0.0)
        return torch.where(
            near,
            x * small.square() * _exp_remainder(small),
            log_mean.exp() - x * (1 + r),
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        log_mean, x = ctx.saved_tensors
        r = _log_ratio(log_mean, x)
        of_mean = of_x = None
        if ctx.needs_input_grad[0]:
            near = (r.abs() < _NEAR) & (x > 0)
            small = torch.where(near, r, 0.0)
            slope = torch.where(
                near,
                x * (small + small.square() * _exp_remainder(small)),
                log_mean.exp() - x,
            )
            of_mean = (gradients[0] * slope).sum_to_size(log_mean.shape)
        if ctx.needs_input_grad[1]:
            of_x = (gradients[0] * torch.where(x > 0, -r, 0.0)).sum_to_size(x.shape)
        return of_mean, of_x


def negative_binomial_deviance(log_mean: Tensor, theta: Tensor, x: Tensor) -> Tensor:
    r"""Half the deviance of a negative binomial variable of mean :math:`\mu` and inverse dispersion
    :math:`\theta`.

    .. math:: (x + \theta) \log\frac{\theta + \mu}{\theta + x} - x \log\frac{\mu}{x} \ge 0

    It tends to :func:`poisson_deviance` as :math:`\theta \to \infty`.
    """
    result: Any = _NegativeBinomialDeviance.apply(log_mean, theta, x)
    return result


class _NegativeBinomialDeviance(torch.autograd.Function):
    """With w = x / (x + theta) and r = log(mean / x): (x + theta) (log(1 - w + w e^r) - w r).

    The bracket is the same for (1 - w, -r) as for (w, r), so that w <= 1/2 can be had.
    """

    @staticmethod
    def forward(ctx: Any, log_mean: Tensor, theta: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(log_mean, theta, x)
        r = _log_ratio(log_mean, x)
        n, less = x + theta, torch.minimum(x, theta)
        w = less / n
        sign = torch.where(x <= theta, 1.0, -1.0).to(log_mean.dtype)
        near = (r.abs() < _NEAR) & (x > 0)
        small = torch.where(near, sign * r, 0.0)
        rest = small.square() * _exp_remainder(small)
        near_value = less * rest - n * _log_remainder(w * (small + rest))
        # log(1 - w + w e^(sign r)) - log(1 - w) = log(1 + e^odds). The exponential of small odds is
        # a product: their sum of large logarithms would be rounded.
        odds = sign * (log_mean - theta.log())
        ratio = less / torch.maximum(x, theta)
        small_odds = (odds < 0) & (ratio > 1e-30)
        factor = torch.where(small_odds, ratio, 1.0)
        tail = factor * torch.where(small_odds, sign * r, -odds.abs()).exp()
        softplus = odds.clamp(min=0) + log1p(tail)
        plain = n * (log1p(-w) + softplus) - sign * less * r
        return torch.where(near, near_value, plain)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        log_mean, theta, x = ctx.saved_tensors
        r = _log_ratio(log_mean, x)
        near = (r.abs() < _NEAR) & (x > 0)
        small = torch.where(near, r, 0.0)
        log_odds = log_mean - theta.log()
        failure = (-log_odds).sigmoid()  # theta / (theta + mean)
        # theta (mean - x) / (theta + mean)
        slope = torch.where(
            near,
            failure * x * (small + small.square() * _exp_remainder(small)),
            theta * log_odds.sigmoid() - x * failure,
        )
        of_mean = of_theta = of_x = None
        if ctx.needs_input_grad[0]:
            of_mean = (gradients[0] * slope).sum_to_size(log_mean.shape)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            y = slope / theta  # (mean - x) / (theta + mean) < 1
            log = theta.log() + _softplus(log_odds) - (x + theta).log()
            if ctx.needs_input_grad[1]:
                close = y.abs() < _NEAR_LOG
                # Far below zero the logarithm is lost beside y, and torch 2.6 has none of 1e38.
                inner = torch.where(y < 0.5, y.clamp(min=-1e30), 0.0)
                plain = torch.where(y < 0.5, -log1p(-inner), log) - y
                by_theta = torch.where(close, _log_remainder(torch.where(close, -y, 0.0)), plain)
                of_theta = (gradients[0] * by_theta).sum_to_size(theta.shape)
            if ctx.needs_input_grad[2]:
                by_x = torch.where(x > 0, log - r, 0.0)
                of_x = (gradients[0] * by_x).sum_to_size(x.shape)
        return of_mean, of_theta, of_x


def beta_deviance(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
    r"""What log p of a beta variable 0 < x < 1 falls below its value at the mean, but for the
    factor 1 / (x (1 - x)).

    .. math:: a \log\frac{a}{n x} + b \log\frac{b}{n (1 - x)} \ge 0, \qquad n = a + b
    """
    result: Any = _BetaDeviance.apply(a, b, x)
    return result


class _BetaDeviance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(a, b, x)
        excess, n = _excess(a, b, x), a + b
        total: Any = 0.0
        for count, ratio, difference in (
            (a, x * (n / a), -excess),
            (b, (1 - x) * (n / b), excess),
        ):
            y = difference / count
            near = y.abs() < _NEAR_LOG
            near_value = count * _log_remainder(torch.where(near, y, 0.0))
            total = total + torch.where(near, near_value, difference - count * ratio.log())
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        a, b, x = ctx.saved_tensors
        excess, n = _excess(a, b, x), a + b
        found: list[Tensor | None] = [None, None, None]
        for i, (count, ratio, difference) in enumerate(
            ((a, x * (n / a), -excess), (b, (1 - x) * (n / b), excess))
        ):
            if ctx.needs_input_grad[i]:
                y = difference / count
                near = y.abs() < _NEAR_LOG
                log = torch.where(near, log1p(torch.where(near, y, 0.0)), ratio.log())
                found[i] = (-log * gradients[0]).sum_to_size(count.shape)
        if ctx.needs_input_grad[2]:
            found[2] = (gradients[0] * -excess / (x * (1 - x))).sum_to_size(x.shape)
        return tuple(found)


def _excess(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
    """a - (a + b) x: double precision holds the products exactly, so nothing is lost in their
    difference.
    """
    wide = double(x)
    return (double(a) * (1 - wide) - double(b) * wide).to(a.dtype)
