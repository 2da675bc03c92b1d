r"""Functions that the densities share, accurate to rounding for every argument in single precision.

The textbook formula of a density with large parameters subtracts large numbers that nearly agree:
for a Poisson variable of mean a million, :math:`x\log\mu - \mu - \log x!` loses a whole nat in
single precision. Each function here evaluates such a difference in a form that has no cancellation.
The deviances have hand-written gradients, since differentiating the branches of a piecewise formula
would bring the cancellation back.

References:
    Fast and Accurate Computation of Binomial Probabilities (Loader, 2000), for the split of a
    probability into Stirling errors and deviances.
"""

import sys
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = [
    "capturing",
    "is_single",
    "log1p",
    "log_one_plus_square",
    "series",
    "stirling_error",
]

# B_2k / (2k (2k - 1)), the coefficients of Stirling's series.
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)


def series(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """The polynomial with these coefficients, lowest first."""
    result = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = result * x + coefficient
    return result


def is_single(x: Tensor) -> bool:
    return x.dtype != torch.float64


def stirling_error(x: Tensor) -> Tensor:
    r"""The error of Stirling's formula for the logarithm of the gamma function, for x > 0.

    .. math:: \log\Gamma(x) - (x - \tfrac12)\log x + x - \tfrac12\log 2\pi

    It falls from infinity at 0 to :math:`1/(12 x)` for large x. The recurrence of the gamma
    function moves small x up by a few steps, to where Stirling's series converges to rounding.

    >>> round(stirling_error(torch.tensor(1.0)).item(), 4)  # 1 - log(2 pi) / 2
    0.0811
    """
    result: Any = _StirlingError.apply(x)
    return result


class _StirlingError(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        near, low, high, terms = _moved(x)
        # Quotients, since a product of x + i alone could overflow.
        quotient = high / low
        steps = torch.where(near, (low - 0.5) * quotient.log() - terms.steps, 0.0)
        for i in range(1, terms.steps):
            quotient = quotient * (high / (low + i))
        inverse = 1 / torch.where(near, high, x)
        tail = inverse * series(inverse.square(), _STIRLING[: terms.series])
        return tail + torch.where(near, steps + quotient.log(), 0.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        near, low, high, terms = _moved(x)
        slope = (high / low).log() - 0.5 * (1 / low + 1 / high)
        for i in range(1, terms.steps):
            slope = slope - 1 / (low + i)
        inverse = 1 / torch.where(near, high, x)
        slopes = tuple(-(2 * k + 1) * c for k, c in enumerate(_STIRLING[: terms.series]))
        tail = inverse.square() * series(inverse.square(), slopes)
        return gradients[0] * (tail + torch.where(near, slope, 0.0))


class _Terms(NamedTuple):
    """How far small arguments move up, and the terms of Stirling's series that
    then reach rounding.
    """

    steps: int
    series: int


def _moved(x: Tensor) -> tuple[Tensor, Tensor, Tensor, _Terms]:
    """Which arguments are small, those (ones elsewhere), and where they move to."""
    terms = _Terms(4, 4) if is_single(x) else _Terms(10, 7)
    near = x < terms.steps
    low = torch.where(near, x, 1.0)
    return near, low, low + terms.steps, terms


def log1p(y: Tensor) -> Tensor:
    """log(1 + y) for y > -1, as torch.log1p, but fast in compiled graphs, where that is not
    vectorised.
    """
    if not capturing():
        return torch.log1p(y)
    result: Any = _Log1p.apply(y)
    return result


class _Log1p(torch.autograd.Function):
    """The rounding of 1 + y cancels in the quotient (Goldberg, 1991, theorem 4)."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        ctx.save_for_backward(y)
        total = 1 + y
        lost = (total == 1) | (total == torch.inf)
        quotient = total.log() / torch.where(lost, 1.0, total - 1)
        return torch.where(total == 1, y, torch.where(lost, total.log(), y * quotient))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return gradients[0] / (1 + y)


def log_one_plus_square(t: Tensor) -> Tensor:
    """log(1 + t^2), where the square of t may overflow or vanish beside one."""
    result: Any = _LogOnePlusSquare.apply(t)
    return result


class _LogOnePlusSquare(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, t: Tensor) -> Tensor:
        ctx.save_for_backward(t)
        large, inner = _split(t)
        square = inner.square()
        total = torch.where(large, t.abs(), 1 + square)
        # As in log1p: the quotient takes back the rounding of the sum.
        exact = large | (total == 1)
        quotient = torch.where(total == 1, square, square / torch.where(exact, 1.0, total - 1))
        log = torch.where(total == 1, 1.0, total.log())
        return log * torch.where(large, 2.0, quotient)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (t,) = ctx.saved_tensors
        large, inner = _split(t)
        small = inner / (1 + inner.square())
        return gradients[0] * 2 * torch.where(large, 1 / torch.where(large, t, 1.0), small)


def _split(t: Tensor) -> tuple[Tensor, Tensor]:
    """Where the one in 1 + t^2 is below rounding, and t with zeros there."""
    large = t.abs() > 1e9
    return large, torch.where(large, 0.0, t)


def capturing() -> bool:
    """Whether a graph is being traced; what traces them is heavy to import, so absent means no."""
    tracer = sys.modules.get("torch.fx.experimental.proxy_tensor")
    return tracer is not None and tracer.get_proxy_mode() is not None
