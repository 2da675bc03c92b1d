"""Gaussian posteriors with correlated coordinates."""

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import softplus

import pyrovae.distributions.normal_kl  # noqa: F401  (registers the KL to a diagonal normal)
from pyrovae.posteriors.base import Posterior, check_not_negative

__all__ = ["FullRankNormal", "LowRankNormal"]


class FullRankNormal(Posterior):
    r"""Gaussian with any covariance.

    .. math:: q(z \mid x) = N(\mu(x),\ L(x) L(x)^\top), \qquad L \text{ lower triangular}

    The encoder has D + D (D + 1) / 2 outputs: the mean, the diagonal of L before softplus, and the
    elements below the diagonal. The KL to a diagonal normal has a closed form.

    Args:
        min_scale: Added to the diagonal of L.

    Raises:
        ValueError: If ``min_scale`` is negative.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014), section 3, footnote 2,
        `arXiv:1312.6114 <https://arxiv.org/abs/1312.6114>`_; An Introduction to Variational
        Autoencoders (Kingma and Welling, 2019), section 2.5.1,
        `arXiv:1906.02691 <https://arxiv.org/abs/1906.02691>`_.

    Example:
        >>> from pyrovae import nets
        >>> q = FullRankNormal().bind(latent_dim=2, data_shape=(6,), encoder=nets.MLP(8))
        >>> q(torch.zeros(5, 6)).covariance_matrix.shape
        torch.Size([5, 2, 2])
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, min_scale: float = 1e-5):
        super().__init__()
        self.min_scale = check_not_negative(min_scale)

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
    r"""Gaussian whose covariance is a diagonal matrix plus one of low rank.

    .. math:: q(z \mid x) = N(\mu(x),\ W(x) W(x)^\top + \operatorname{diag} d(x))

    The encoder has (2 + R) D outputs: the mean, the standard deviations :math:`\sqrt d` before
    softplus, and W, ``(D, R)``. The KL to a diagonal normal has a closed form.

    Args:
        rank: R, the number of columns of W.
        min_scale: Added to the square root of d.

    Raises:
        ValueError: If ``rank < 1`` or ``min_scale`` is negative.

    References:
        Stochastic Backpropagation and Approximate Inference in Deep Generative Models (Rezende et
        al., 2014), section 4.3, for a precision with a term of rank one,
        `arXiv:1401.4082 <https://arxiv.org/abs/1401.4082>`_; here the covariance has a term of rank
        R.

    Example:
        >>> from pyrovae import nets
        >>> q = LowRankNormal(rank=1).bind(latent_dim=4, data_shape=(6,), encoder=nets.MLP(8))
        >>> q(torch.zeros(5, 6)).cov_factor.shape
        torch.Size([5, 4, 1])
    """

    def __init__(self, rank: int = 2, min_scale: float = 1e-4):
        super().__init__()
        if rank < 1:
            raise ValueError(
                f"LowRankNormal needs rank >= 1, found {rank}. Use DiagonalNormal for none."
            )
        self.rank, self.min_scale = rank, check_not_negative(min_scale)

    def output_size(self) -> int:
        return (2 + self.rank) * self.latent_dim

    def distribution(self, outputs: Tensor):
        loc, raw, factor = outputs.split(
            [self.latent_dim, self.latent_dim, self.rank * self.latent_dim], -1
        )
        factor = factor.unflatten(-1, (self.latent_dim, self.rank))
        diagonal = (softplus(raw) + self.min_scale).square()
        return dist.LowRankMultivariateNormal(loc, factor, diagonal, validate_args=False)
