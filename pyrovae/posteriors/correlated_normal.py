"""Gaussian encoders with correlated coordinates."""

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import softplus

import pyrovae.distributions.normal_kl  # noqa: F401  (registers the KL to a diagonal normal)
from pyrovae.posteriors.base import Posterior

__all__ = ["FullRankNormal", "LowRankNormal"]


class FullRankNormal(Posterior):
    r"""Gaussian of any covariance, :math:`q(z \mid x) = N(\mu(x),\ L(x) L(x)^\top)`, L lower triangular.

    The encoder gives D + D (D + 1) / 2 outputs: the mean, the diagonal of L before softplus, and what lies below.
    The KL to a diagonal normal is in closed form.

    Args:
        min_scale: Added to the diagonal of L.

    Raises:
        ValueError: If ``min_scale`` is negative.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014), section 3, footnote 2; An Introduction to
        Variational Autoencoders (Kingma and Welling, 2019), section 2.5.1.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, min_scale: float = 1e-5):
        super().__init__()
        self.min_scale = _not_negative(min_scale)

    def build(self) -> None:
        rows, columns = torch.tril_indices(self.latent_dim, self.latent_dim, offset=-1)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)

    def output_size(self) -> int:
        return self.latent_dim + self.latent_dim * (self.latent_dim + 1) // 2

    def distribution(self, outputs: Tensor):
        dim = self.latent_dim
        loc, diagonal, below = outputs.split([dim, dim, dim * (dim - 1) // 2], -1)
        tril = torch.diag_embed(softplus(diagonal) + self.min_scale)  # (*batch, D, D)
        index = self.rows * dim + self.columns
        tril = tril.flatten(-2).index_add(-1, index, below).unflatten(-1, (dim, dim))
        return dist.MultivariateNormal(loc, scale_tril=tril, validate_args=False)


class LowRankNormal(Posterior):
    r"""Gaussian of diagonal plus low-rank covariance, :math:`q(z \mid x) = N(\mu, W W^\top + \operatorname{diag} d)`.

    The encoder gives (2 + R) D outputs: the mean, the standard deviations :math:`\sqrt d` before softplus, and
    W, ``(D, R)``. The KL to a diagonal normal is in closed form.

    Args:
        rank: R, the number of columns of W.
        min_scale: Added to the square root of d.

    Raises:
        ValueError: If ``rank < 1`` or ``min_scale`` is negative.

    References:
        Stochastic Backpropagation and Approximate Inference in Deep Generative Models (Rezende et al., 2014),
        section 4.3, for a rank-one precision; here the covariance has rank R.
    """

    def __init__(self, rank: int = 2, min_scale: float = 1e-4):
        super().__init__()
        if rank < 1:
            raise ValueError(
                f"LowRankNormal needs rank >= 1, found {rank}. Use DiagonalNormal for none."
            )
        self.rank, self.min_scale = rank, _not_negative(min_scale)

    def output_size(self) -> int:
        return (2 + self.rank) * self.latent_dim

    def distribution(self, outputs: Tensor):
        loc, raw, factor = outputs.split(
            [self.latent_dim, self.latent_dim, self.rank * self.latent_dim], -1
        )
        factor = factor.unflatten(-1, (self.latent_dim, self.rank))
        diagonal = (softplus(raw) + self.min_scale).square()
        return dist.LowRankMultivariateNormal(loc, factor, diagonal, validate_args=False)


def _not_negative(min_scale: float) -> float:
    if not min_scale >= 0:
        raise ValueError(f"min_scale must not be negative, found {min_scale}.")
    return min_scale
