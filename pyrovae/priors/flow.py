"""A prior as flexible as its networks."""

from collections.abc import Sequence

import torch
from pyro.distributions import Normal
from torch import Tensor

from pyrovae.distributions.flow import AutoregressiveSteps, FlowDistribution, check_flow
from pyrovae.priors.base import Prior

__all__ = ["Flow"]


class Flow(Prior):
    r"""Normalizing flow, fast in the density.

    .. math:: p(z) = N(e;\ 0, I)\, |\det \partial f / \partial z|, \qquad e = f(z)

    f is a stack of masked autoregressive maps. Scoring takes one pass of each; a draw takes D passes, or two
    with ``coupling``.

    Args:
        num_transforms: Maps in the stack.
        hidden: Widths of each map's masked network.
        transform: ``"affine"``, or ``"spline"`` (rational-quadratic on [-5, 5], identity beyond).
        bins: Bins of a spline.
        coupling: Split coordinates in halves, where draws are hot.

    Raises:
        ValueError: If the transform is another word, or a size is not positive.

    References:
        Masked Autoregressive Flow for Density Estimation (Papamakarios et al., 2017); Neural Spline Flows
        (Durkan et al., 2019); Density estimation using Real NVP (Dinh et al., 2017) for coupling; as a VAE's
        prior, Variational Lossy Autoencoder (Chen et al., 2017), section 3.2.
    """

    zeros: Tensor

    def __init__(
        self,
        num_transforms: int = 3,
        hidden: Sequence[int] = (128, 128),
        transform: str = "affine",
        bins: int = 8,
        coupling: bool = False,
    ):
        super().__init__()
        check_flow("Flow", num_transforms, hidden, transform, bins)
        self.num_transforms, self.hidden, self.transform = num_transforms, tuple(hidden), transform
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
