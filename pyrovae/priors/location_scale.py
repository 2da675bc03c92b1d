"""Fixed priors with heavier tails than the normal's."""

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyrovae.distributions import location_scale
from pyrovae.priors.base import Prior

__all__ = ["Laplace", "StudentT"]


class Laplace(Prior):
    r"""Independent Laplace coordinates, which favour sparse codes.

    .. math:: p(z) = \prod_d \frac{1}{2b} e^{-|z_d| / b}

    Args:
        scale: b; the standard deviation is :math:`\sqrt 2\, b`.

    Raises:
        ValueError: If the scale is not finite and positive.

    References:
        Emergence of simple-cell receptive field properties by learning a sparse code for natural
        images (Olshausen and Field, 1996); in VAEs, Sparse-Coding Variational Auto-Encoders
        (Barello et al., 2018).

    Example:
        >>> prior = Laplace(scale=0.5).bind(latent_dim=3, data_shape=(28, 28))
        >>> prior().log_prob(torch.zeros(3))
        tensor(0.)
    """

    zeros: Tensor

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.scale = _positive("scale", scale)

    def build(self) -> None:
        self.register_buffer("zeros", torch.zeros(self.latent_dim), persistent=False)

    def forward(self):
        scale = torch.full_like(self.zeros, self.scale)
        return dist.Laplace(self.zeros, scale, validate_args=False).to_event(1)  # (D,)


class StudentT(Prior):
    r"""Independent Student t coordinates, with heavy tails.

    .. math:: p(z) \propto \prod_d \left(1 + \frac{z_d^2}{\nu s^2}\right)^{-(\nu + 1) / 2}

    Args:
        df: Degrees of freedom nu; the variance is finite for nu > 2.
        scale: s.

    Raises:
        ValueError: If either is not finite and positive.

    References:
        t3-Variational Autoencoder: Learning Heavy-tailed Data with Student's t and Power Divergence
        (Kim et al., 2024), for a multivariate t; here coordinates are independent,
        `arXiv:2312.01133 <https://arxiv.org/abs/2312.01133>`_.

    Example:
        >>> prior = StudentT(df=1.0).bind(latent_dim=1, data_shape=(28, 28))
        >>> prior().log_prob(torch.zeros(1))  # the Cauchy distribution: -log(pi)
        tensor(-1.1447)
    """

    zeros: Tensor

    def __init__(self, df: float = 5.0, scale: float = 1.0):
        super().__init__()
        self.df, self.scale = _positive("df", df), _positive("scale", scale)

    def build(self) -> None:
        self.register_buffer("zeros", torch.zeros(self.latent_dim), persistent=False)

    def forward(self) -> Any:
        df, scale = (torch.full_like(self.zeros, value) for value in (self.df, self.scale))
        return location_scale.StudentT(df, self.zeros, scale).to_event(1)  # (D,)


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be finite and positive, found {value}.")
    return float(value)
