"""The tail of importance weights: a generalised Pareto distribution fitted to
the largest of them.
"""

import math
from typing import Any

import torch
from torch import Tensor

BAD_K = 0.7
"""Pareto k above which the mean of the weights is not to be trusted."""

_FLAT = 1e-4  # nats between the largest weight and the threshold below which there is no tail
_LEAST = 5  # weights that a fit needs
_PRIOR = 10  # observations that a shape of 1/2 counts for, against the weights in the tail


def tail_size(num_particles: int) -> int:
    r"""How many of the largest weights Pareto smoothing takes as the tail:
    :math:`\min(K / 5, 3 \sqrt K)`.

    References:
        Pareto Smoothed Importance Sampling (Vehtari et al., 2024), section 3,
        `arXiv:1507.02646 <https://arxiv.org/abs/1507.02646>`_.

    Example:
        >>> tail_size(100), tail_size(10_000)
        (20, 300)
    """
    return int(3 * math.sqrt(num_particles)) if num_particles > 225 else num_particles // 5


def prior_share(size: int) -> float:
    """How much of k comes from the prior, where the tail has ``size`` weights.

    Example:
        >>> prior_share(90)
        0.1
    """
    return _PRIOR / (size + _PRIOR)


def shrunk_k(k: Any, size: int) -> Any:
    """k from ``size`` weights, shrunk towards 1/2 (Vehtari et al., 2024).

    Example:
        >>> shrunk_k(1.0, size=10)
        0.75
    """
    return (size * k + _PRIOR * 0.5) / (size + _PRIOR)


def pareto_k(log_w: Tensor, num_particles: int | None = None) -> Tensor:
    r"""``(B,)``: shape k of the generalised Pareto distribution fitted to the largest weights of
    each datum.

    Above 0.7 the mean of the weights cannot be trusted at any K that one can pay for. The values
    agree with :func:`arviz_stats.base.array_stats.psislw`, and two cases beyond it are defined
    here: ``-inf`` where the largest weights are all equal (to a ten-thousandth), so that there is
    no tail to fit, and ``inf`` where there are too few weights for a diagnosis (K < 25), or none
    that is positive.

    Args:
        log_w: ``(K, B)``, or only the ``tail_size(K) + 1`` (or more) largest weights of each datum.
        num_particles: K, if ``log_w`` holds only the largest.

    References:
        Pareto Smoothed Importance Sampling (Vehtari et al., 2024),
        `arXiv:1507.02646 <https://arxiv.org/abs/1507.02646>`_; A New and Efficient Estimation
        Method for the Generalized Pareto Distribution (Zhang and Stephens, 2009).

    Example:
        >>> u = (torch.arange(10_000) + 0.5) / 10_000
        >>> log_w = -0.8 * u.log()[:, None]  # the quantiles of a Pareto distribution with k = 0.8
        >>> round(pareto_k(log_w).item(), 1)
        0.8
    """
    return pareto_tail(log_w, num_particles)[0]


def pareto_tail(
    log_w: Tensor, num_particles: int | None = None, *, margin: float = 0.0, horizon: float = 10_000
) -> tuple[Tensor, Tensor]:
    r"""k as :func:`pareto_k`, and the share of the mean that K draws may have missed, each
    ``(B,)``.

    The second is in nats: :math:`\log(1 + \Delta / \bar w)`, with :math:`\Delta` the rise of the
    mean weight if the tail went on as far as ``horizon`` times K draws would follow it. The tail's
    shape is taken at the upper end :math:`k + m (1 + \max(k, 0)) / \sqrt M`, where m is ``margin``
    and M the number of weights in the tail: the second term is the asymptotic standard error of k
    (Smith, 1987). The tail's scale is the one that gives the median excess that was seen. The
    result is zero where that shape is not positive (the tail ends), and ``inf`` where there is no
    diagnosis.

    Args:
        log_w, num_particles: As in :func:`pareto_k`.
        margin: Standard errors that are added to k.
        horizon: How many times K draws the tail is followed.

    References:
        Estimating Tails of Probability Distributions (Smith, 1987).

    Example:
        >>> u = (torch.arange(10_000) + 0.5) / 10_000
        >>> _, unseen = pareto_tail(torch.stack([-0.8 * u.log(), u.log()], 1))
        >>> (unseen > 0).tolist()  # a heavy tail, and weights that end at one
        [True, False]
    """
    num = num_particles or log_w.shape[0]
    size = tail_size(num)
    if size < _LEAST:
        unknown = torch.full_like(log_w[0], math.inf)
        return unknown, unknown.clone()
    top = log_w.double().topk(size + 1, dim=0).values  # (M + 1, B), descending
    columns = max(1, 4_000_000 // (size * (30 + math.isqrt(size))))
    results = [_fit_tail(piece, margin, horizon) for piece in top.split(columns, 1)]
    return torch.cat([k for k, _ in results]), torch.cat([u for _, u in results])


def _fit_tail(top: Tensor, margin: float, horizon: float) -> tuple[Tensor, Tensor]:
    size = top.shape[0] - 1
    flat = ~((top[0] - top[-1]) > _FLAT) | (top[0] == top[-2])
    relative = torch.exp(top - top[0])  # the largest is one
    excess = relative[:-1].flip(0) - relative[-1]  # (M, B), ascending
    quartile = excess[int(size / 4 + 0.5) - 1]
    ties = (quartile <= 0) & ~flat
    k = _generalized_pareto(excess, torch.where(quartile > 0, quartile, 1.0))
    # Of discrete weights those above the threshold are fitted.
    for column in ties.nonzero().flatten().tolist():
        positive = excess[:, column][excess[:, column] > 0].unsqueeze(1)
        n = positive.shape[0]
        enough = n >= _LEAST
        k[column] = (
            _generalized_pareto(positive, positive[int(n / 4 + 0.5) - 1])[0] if enough else math.inf
        )
    shape = k + margin * (1 + k.clamp_min(0)) / math.sqrt(size)
    missing = (_tail_mean(shape, excess, horizon) - excess.mean(0)).clamp_min(0) * size
    # The sum of all weights is at least that of the tail.
    unseen = torch.log1p(missing / relative[:-1].sum(0))
    unseen = torch.where(k.isinf(), math.inf, torch.where(shape <= 0, 0.0, unseen))
    k, unseen = torch.where(flat, -math.inf, k), torch.where(flat, 0.0, unseen)
    nothing = top[0] == -math.inf  # all weights are zero: equal, but no sign of an exact guide
    return torch.where(nothing, math.inf, k), torch.where(nothing, math.inf, unseen)


def _tail_mean(k: Tensor, excess: Tensor, horizon: float) -> Tensor:
    """Mean of the generalised Pareto distribution of shape k with this median, up to its quantile
    1 - 1/(horizon M).
    """
    k = k.clamp_min(1e-6)
    scale = k * excess.median(0).values / torch.expm1(k * math.log(2))
    rest = 1 / (horizon * excess.shape[0])
    powers = -torch.expm1((1 - k) * math.log(rest)) / (1 - k)
    powers = torch.where((k - 1).abs() < 1e-6, -math.log(rest), powers)
    return scale / k * (powers - (1 - rest))


def _generalized_pareto(excess: Tensor, quartile: Tensor) -> Tensor:
    """Zhang and Stephens's estimate of k, shrunk towards 1/2; excess ``(M, B)`` ascending."""
    size = excess.shape[0]
    grid = 30 + math.isqrt(size)
    steps = torch.arange(1, grid + 1, dtype=excess.dtype, device=excess.device) - 0.5
    theta = (1 - (grid / steps).sqrt())[:, None] / (3 * quartile) + 1 / excess[-1]  # (grid, B)
    shape = torch.log1p(-theta[:, None] * excess).mean(1)
    likelihood = size * ((-theta / shape).log() - shape - 1)
    weight = likelihood.softmax(0)
    weight = torch.where(weight >= 10 * torch.finfo(weight.dtype).eps, weight, 0.0)
    theta = (theta * weight).sum(0) / weight.sum(0)
    k = torch.log1p(-theta * excess).mean(0)
    return shrunk_k(k, size)
