"""Jackknife variational inference."""

import math

import torch
from torch import Tensor

from pyrovae.estimators.base import Terms, check_count
from pyrovae.estimators.iwae import Weighted
from pyrovae.particles import Particles
from pyrovae.weights import leave_one_out, log_mean_exp

__all__ = ["Jackknife"]


class Jackknife(Weighted):
    r"""Importance-weighted estimate of log p(x) with its leading bias terms taken away, in nats per
    datum.

    .. math:: \sum_{j=0}^m (-1)^j \frac{(K - j)^m}{(m - j)!\, j!}\, \bar L_{K - j}

    where :math:`\bar L_{K-j}` is the mean of :class:`IWAE` over all ways to leave j of the K
    particles out. The bias falls like :math:`K^{-(m + 1)}` rather than 1/K. It may have either
    sign, so for m > 0 the result is an estimate and no bound. Order 0 is :class:`IWAE`. Work grows
    like :math:`K^m`. For held-out data, :func:`pyrovae.weights.jackknife` computes the same number
    without gradients, in constant memory.

    References:
        Debiasing Evidence Approximations: On Importance-weighted Autoencoders and Jackknife
        Variational Inference (Nowozin, 2018), equations 9 and 10.

    Args:
        order: Number m of bias terms taken away.
        num_particles: Draws K > m for each datum.
        max_plate_nesting: Batch dimensions that the programs use themselves.

    Raises:
        ValueError: If the order is negative or not below K; on use, as for :class:`IWAE`.

    Example:
        >>> import torch
        >>> from pyrovae.testing import LinearGaussian
        >>> oracle = LinearGaussian()  # its guide is the exact posterior, so the bound is log p(x)
        >>> x = oracle.sample(2)
        >>> bound = Jackknife(order=1, num_particles=5).bound(oracle.model, oracle.guide, x)
        >>> bool(torch.allclose(bound, oracle.log_prob(x)))
        True
    """

    needs_rsample = True

    def __init__(self, order: int = 1, num_particles: int = 10, *, max_plate_nesting: int = 1):
        check_count("Jackknife", "order", order, 0)
        self.order = order
        self.least_particles = order + 1
        super().__init__(num_particles, max_plate_nesting=max_plate_nesting)

    def terms(self, particles: Particles) -> Terms:
        log_w, num = particles.log_weights, particles.num_particles
        bound = torch.zeros_like(log_w[0])
        for left_out in range(self.order + 1):
            share = (-1) ** left_out * (num - left_out) ** self.order
            share = share / (math.factorial(self.order - left_out) * math.factorial(left_out))
            bound = bound + share * _mean_without(log_w, left_out)
        return Terms(bound, bound)


def _mean_without(log_w: Tensor, left_out: int) -> Tensor:
    """``(B,)``: mean of log-mean-exp over all ordered ways to leave so many particles out."""
    if left_out == 0:
        return log_mean_exp(log_w)
    num = len(log_w) - left_out
    for _ in range(left_out - 1):
        index = torch.arange(len(log_w), device=log_w.device)
        # Column k lists everyone but k.
        log_w = log_w[index[1:, None] - (index[1:, None] <= index[None]).long()]
    return leave_one_out(log_w).flatten(0, -2).mean(0) - math.log(num)
