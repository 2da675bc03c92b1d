"""The standard normal prior."""

import pyro.distributions as dist
import torch
from torch import Tensor

from pyrovae.priors.base import Prior

__all__ = ["StandardNormal"]


class StandardNormal(Prior):
    r"""The usual prior, :math:`p(z) = N(0, I)` on :math:`\mathbb R^D`.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014),
        `arXiv:1312.6114 <https://arxiv.org/abs/1312.6114>`_.

    Example:
        >>> prior = StandardNormal().bind(latent_dim=2, data_shape=(28, 28))
        >>> prior().log_prob(torch.zeros(2))  # -log(2 pi)
        tensor(-1.8379)
    """

    zeros: Tensor
    ones: Tensor

    def build(self) -> None:
        self.register_buffer("zeros", torch.zeros(self.latent_dim), persistent=False)
        self.register_buffer("ones", torch.ones(self.latent_dim), persistent=False)

    def forward(self):
        return dist.Normal(self.zeros, self.ones).to_event(1)  # (D,)
