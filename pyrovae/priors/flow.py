"""A prior made of a normalizing flow."""

from collections.abc import Sequence

import torch
from pyro.distributions import Normal
from torch import Tensor

from pyrovae.distributions.flow import (
    AutoregressiveSteps,
    FlowDistribution,
    TransformKind,
    check_flow,
)
from pyrovae.priors.base import Prior

__all__ = ["Flow"]


class Flow(Prior):
    r"""Normalizing flow whose density is fast to evaluate.

    .. math:: p(z) = N(e;\ 0, I)\, |\det \partial f / \partial z|, \qquad e = f(z)

    f is a stack of masked autoregressive maps. The density runs the network of each map once. A
    draw runs it D times, or twice with ``coupling``.

    Args:
        num_transforms: Number of maps.
        hidden: Widths of each map's masked network.
        transform: ``"affine"``, or ``"spline"`` (rational-quadratic on [-5, 5], identity beyond).
        bins: Bins of a spline.
        coupling: Split the coordinates in two halves, the second of which depends on the first; for
            fast draws.

    Raises:
        ValueError: If the transform is another word, or a size is not positive.

    References:
        Masked Autoregressive Flow for Density Estimation (Papamakarios et al., 2017),
        `arXiv:1705.07057 <https://arxiv.org/abs/1705.07057>`_; Neural Spline Flows (Durkan et al.,
        2019), `arXiv:1906.04032 <https://arxiv.org/abs/1906.04032>`_; Density estimation using Real
        NVP (Dinh et al., 2017), for coupling,
        `arXiv:1605.08803 <https://arxiv.org/abs/1605.08803>`_; as the prior of a VAE, Variational
        Lossy Autoencoder (Chen et al., 2017), section 3.2,
        `arXiv:1611.02731 <https://arxiv.org/abs/1611.02731>`_.

    Example:
        >>> prior = Flow(num_transforms=2, hidden=(16,)).bind(latent_dim=3, data_shape=(28, 28))
        >>> prior().log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    zeros: Tensor

    def __init__(
        self,
        num_transforms: int = 3,
        hidden: Sequence[int] = (128, 128),
        transform: TransformKind = "affine",
        bins: int = 8,
        coupling: bool = False,
    ):
        super().__init__()
        check_flow("Flow", num_transforms, hidden, transform, bins)
        self.num_transforms, self.hidden = num_transforms, tuple(hidden)
        self.transform: TransformKind = transform
        self.bins, self.coupling = bins, coupling

    def build(self) -> None:
        self.register_buffer("zeros", torch.zeros(self.latent_dim), persistent=False)
        self.steps = AutoregressiveSteps(
            self.latent_dim,
            num_transforms=self.num_transforms,
            hidden=self.hidden,
            transform=self.transform,
            bins=self.bins,
            coupling=self.coupling,
        )

    def forward(self) -> FlowDistribution:
        base = Normal(self.zeros, torch.ones_like(self.zeros), validate_args=False).to_event(1)
        return FlowDistribution(base, self.steps, fast="density")  # (D,)
