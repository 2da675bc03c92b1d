"""A posterior made of a normalizing flow."""

from collections.abc import Sequence

from pyro.distributions import Normal
from torch import Tensor
from torch.nn.functional import softplus

from pyrovae.distributions.flow import (
    AutoregressiveSteps,
    FlowDistribution,
    TransformKind,
    check_flow,
)
from pyrovae.posteriors.base import Posterior, check_not_negative

__all__ = ["Flow"]


class Flow(Posterior):
    r"""Inverse autoregressive flow given x, which is fast to draw from.

    .. math:: e \sim N(\mu(x), \operatorname{diag}\sigma^2(x)), \quad z = f(e; h(x)), \quad
              q(z \mid x) = N(e)\, |\det \partial f / \partial e|^{-1}

    The encoder has 2 D + ``context`` outputs: mu, sigma before softplus, and h. A draw runs the
    network of each map once, and the density of that draw is known then. The density of any other
    tensor takes D runs of each network, or two with ``coupling``. This concerns estimators that
    detach draws from the guide's parameters (STL, DReG), and ``priors.Vamp`` with this posterior.

    Args:
        num_transforms: Number of maps.
        hidden: Widths of each map's masked network.
        transform: ``"affine"``, or ``"spline"`` (rational-quadratic on [-5, 5], identity beyond).
        bins: Bins of a spline.
        coupling: Split the coordinates in two halves, the second of which depends on the first; for
            fast densities of any tensor.
        context: Size of h(x).
        min_scale: Added to sigma.

    Raises:
        ValueError: If the transform is another word, a size is not positive, or ``min_scale`` is
            negative.

    References:
        Improving Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016),
        section 4 and algorithm 1 (with a scale in place of their gate),
        `arXiv:1606.04934 <https://arxiv.org/abs/1606.04934>`_; Neural Spline Flows (Durkan et al.,
        2019), `arXiv:1906.04032 <https://arxiv.org/abs/1906.04032>`_.

    Example:
        >>> import torch
        >>> from pyrovae import nets
        >>> q = Flow(num_transforms=1, hidden=(16,), context=4)
        >>> q = q.bind(latent_dim=2, data_shape=(6,), encoder=nets.MLP(8))
        >>> q(torch.zeros(5, 6)).rsample().shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        num_transforms: int = 2,
        hidden: Sequence[int] = (128, 128),
        transform: TransformKind = "affine",
        bins: int = 8,
        coupling: bool = False,
        context: int = 64,
        min_scale: float = 1e-4,
    ):
        super().__init__()
        check_flow("Flow", num_transforms, hidden, transform, bins)
        if context < 1:
            raise ValueError(f"Flow needs context >= 1, found {context}.")
        self.num_transforms, self.hidden = num_transforms, tuple(hidden)
        self.transform: TransformKind = transform
        self.bins, self.coupling, self.context = bins, coupling, context
        self.min_scale = check_not_negative(min_scale)

    def build(self) -> None:
        self.steps = AutoregressiveSteps(
            self.latent_dim,
            self.context,
            num_transforms=self.num_transforms,
            hidden=self.hidden,
            transform=self.transform,
            bins=self.bins,
            coupling=self.coupling,
        )

    def output_size(self) -> int:
        return 2 * self.latent_dim + self.context

    def distribution(self, outputs: Tensor) -> FlowDistribution:
        loc, raw, context = outputs.split([self.latent_dim, self.latent_dim, self.context], -1)
        base = Normal(loc, softplus(raw) + self.min_scale, validate_args=False).to_event(1)
        return FlowDistribution(base, self.steps, context, fast="draw")
