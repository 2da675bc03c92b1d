"""Mean, effective sample size and standard error of importance weights, in log space."""

import math

import torch
from torch import Tensor


def log_mean_exp(log_w: Tensor, dim: int = 0) -> Tensor:
    r"""Stable :math:`\log \frac1K \sum_k e^{\log w_k}` along ``dim``.

    Example:
        >>> round(log_mean_exp(torch.tensor([1.0, 3.0]).log()).exp().item(), 4)
        2.0
    """
    return torch.logsumexp(log_w, dim) - math.log(log_w.shape[dim])


def shared(shares: Tensor, values: Tensor) -> Tensor:
    """``shares * values``, where no share counts nothing: a particle that is impossible has an
    infinite log-density.

    Example:
        >>> shared(torch.tensor([0.0, 0.5]), torch.tensor([-math.inf, 4.0]))
        tensor([0., 2.])
    """
    return shares * torch.where(shares == 0, 0.0, values)


def ess(log_w: Tensor, dim: int = 0) -> Tensor:
    r"""Effective sample size of self-normalised weights, :math:`(\sum w)^2 / \sum w^2`, between 1
    and K.

    References:
        Kong, *A note on importance sampling using standardized weights* (1992).

    Example:
        >>> weights = torch.tensor([1.0, 1.0, 0.0])
        >>> round(ess(weights.log()).item(), 4)
        2.0
    """
    return torch.exp(2 * torch.logsumexp(log_w, dim) - torch.logsumexp(2 * log_w, dim))


def standard_error(log_w: Tensor, dim: int = 0) -> Tensor:
    r"""Delta-method standard error of :func:`log_mean_exp`:
    :math:`\widehat{sd}(w) / (\sqrt K\, \bar w)`.

    The sample variance uses K - 1; with one particle there is no estimate and the result is
    infinite.

    Example:
        >>> weights = torch.tensor([1.0, 3.0])  # their sd is sqrt(2), their mean 2
        >>> round(standard_error(weights.log()).item(), 4)
        0.5
    """
    num = log_w.shape[dim]
    if num == 1:
        return torch.full_like(log_w.select(dim, 0), math.inf)
    relative = torch.exp(log_w - torch.logsumexp(log_w, dim, keepdim=True)) * num  # mean one
    return ((relative - 1).square().sum(dim) / (num * (num - 1))).sqrt()


def leave_one_out(log_w: Tensor) -> Tensor:
    r"""``(K, B)``: :math:`\log \sum_{j \neq k} e^{\log w_j}` for each k, along the first dimension,
    in O(K).

    Running sums from both ends leave k out, so that a dominant weight is never subtracted again.

    Example:
        >>> weights = torch.tensor([[1.0], [2.0], [3.0]])
        >>> leave_one_out(weights.log()).exp().round().flatten().tolist()
        [5.0, 4.0, 3.0]
    """
    # A finite stand-in for the logarithm of zero, of which torch's gradients make NaN.
    nothing = torch.finfo(log_w.dtype).min / 8
    log_w = log_w.clamp(min=nothing)
    edge = torch.full_like(log_w[:1], nothing)
    before = torch.cat([edge, log_w.logcumsumexp(0)[:-1]])
    after = torch.cat([log_w.flip(0).logcumsumexp(0).flip(0)[1:], edge])
    rest = torch.logaddexp(before, after)
    return torch.where(rest < nothing / 2, -math.inf, rest)
