"""Fixed priors of heavier tails than the normal's."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor

from pyrovae.priors.base import Prior

__all__ = ["Laplace", "StudentT"]


class Laplace(Prior):
    r"""Independent Laplace coordinates, :math:`p(z) = \prod_d \frac{1}{2b} e^{-|z_d| / b}`, which favour sparse codes.

    Args:
        scale: b; the standard deviation is :math:`\sqrt 2\, b`.

    Raises:
        ValueError: If the scale is not finite and positive.

    References:
        Emergence of simple-cell receptive field properties by learning a sparse code for natural images
        (Olshausen and Field, 1996); in VAEs, Sparse-Coding Variational Auto-Encoders (Barello et al., 2018).
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
    r"""Independent Student t coordinates, :math:`p(z_d) \propto (1 + z_d^2 / (\nu s^2))^{-(\nu + 1) / 2}`.

    Args:
        df: Degrees of freedom nu; the variance is finite for nu > 2.
        scale: s.

    Raises:
        ValueError: If either is not finite and positive.

    References:
        t3-Variational Autoencoder: Learning Heavy-tailed Data with Student's t and Power Divergence
        (Kim et al., 2024), for a multivariate t; here coordinates are independent.
    """

    zeros: Tensor

    def __init__(self, df: float = 5.0, scale: float = 1.0):
        super().__init__()
        self.df, self.scale = _positive("df", df), _positive("scale", scale)

    def build(self) -> None:
        self.register_buffer("zeros", torch.zeros(self.latent_dim), persistent=False)

    def forward(self):
        df, scale = torch.full_like(self.zeros, self.df), torch.full_like(self.zeros, self.scale)
        return dist.StudentT(df, self.zeros, scale, validate_args=False).to_event(1)  # (D,)


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be finite and positive, found {value}.")
    return float(value)
