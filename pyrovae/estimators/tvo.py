"""The thermodynamic variational objective."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch

from pyrovae.estimators.base import Terms
from pyrovae.estimators.iwae import Weighted
from pyrovae.particles import Particles
from pyrovae.weights import shared

__all__ = ["TVO"]


class TVO(Weighted):
    r"""Thermodynamic variational objective: an integral over temperatures as a sum, in nats per
    datum.

    .. math:: \log p(x) = \int_0^1 \mathbb E_{\pi_\beta}[\log w]\, d\beta
              \;\ge\; \sum_{i=0}^{T-1} (\beta_{i+1} - \beta_i)\, \mathbb E_{\pi_{\beta_i}}[\log w],
              \qquad
              \pi_\beta \propto q(z \mid x)^{1 - \beta}\, p(x, z)^\beta

    The integrand rises with beta, so left ends give a lower bound and right ends an upper one. Each
    expectation is estimated from K draws of q with the weights :math:`w^\beta`, which has a bias
    for small K. With one interval and left ends the bound is the ELBO. The gradient has the
    covariance form, which works for any latent site:

    .. math:: \nabla \mathbb E_{\pi_\beta}[f] = \mathbb E_{\pi_\beta}[\nabla f]
              + \mathrm{Cov}_{\pi_\beta}(\nabla \log \tilde\pi_\beta, f)

    with the sample covariance's factor K / (K - 1).

    References:
        The Thermodynamic Variational Objective (Masrani et al., 2019,
        `arXiv:1907.00031 <https://arxiv.org/abs/1907.00031>`_), equations 7, 8 and 11.

    Args:
        num_particles: Draws K >= 2 for each datum.
        partition: Number T of intervals, whose inner ends are spaced evenly in log beta from
            ``first``; or the increasing ends themselves, from 0 to 1.
        first: The smallest positive end where ``partition`` is a number.
        upper: Use right ends, for an upper bound.
        max_plate_nesting: Batch dimensions that the programs use themselves.

    Raises:
        ValueError: If K is 1, if the ends do not increase from 0 to 1, or, on use, if the programs
            are scaled.

    Example:
        >>> from pyrovae.testing import LinearGaussian
        >>> oracle = LinearGaussian()
        >>> x = oracle.sample(2)
        >>> TVO(num_particles=5, partition=3).bound(oracle.model, oracle.guide, x).shape
        torch.Size([2])
    """

    draws = "detached"
    least_particles = 2  # its gradient is a covariance over particles

    def __init__(
        self,
        num_particles: int = 10,
        *,
        partition: int | Sequence[float] = 5,
        first: float = 0.1,
        upper: bool = False,
        max_plate_nesting: int = 1,
    ):
        super().__init__(num_particles, max_plate_nesting=max_plate_nesting)
        self.partition = _ends(partition, first)
        self.upper = upper

    def terms(self, particles: Particles) -> Terms:
        log_w, log_p, log_q = particles.log_weights, particles.log_p, particles.log_q
        correction = particles.num_particles / (particles.num_particles - 1)
        frozen = log_w.detach()
        bound, objective = torch.zeros_like(log_w[0]), torch.zeros_like(log_w[0])
        for left, right in pairwise(self.partition):
            beta = right if self.upper else left
            shares = (beta * frozen).softmax(0)  # (K, B)
            mean = shared(shares, frozen).sum(0)
            path = beta * log_p + (1 - beta) * log_q + particles.log_auxiliary
            slope = shared(shares, log_w) + correction * shared(shared(shares, frozen - mean), path)
            bound = bound + (right - left) * mean
            objective = objective + (right - left) * slope.sum(0)
        return Terms(bound, objective)


def _ends(partition: int | Sequence[float], first: float) -> tuple[float, ...]:
    if isinstance(partition, int | np.integer):
        partition = int(partition)
        if partition < 1:
            raise ValueError(f"TVO needs at least one interval, found partition={partition}.")
        if not 0 < first < 1:
            raise ValueError(f"TVO needs 0 < first < 1, found {first}.")
        inner = [first ** (1 - i / (partition - 1)) for i in range(partition - 1)]
        return (0.0, *inner, 1.0)
    ends = tuple(float(end) for end in partition)  # type: ignore[union-attr]
    if len(ends) < 2 or ends[0] != 0 or ends[-1] != 1 or any(a >= b for a, b in pairwise(ends)):
        raise ValueError(f"TVO needs ends that increase from 0 to 1, found partition={ends}.")
    return ends
