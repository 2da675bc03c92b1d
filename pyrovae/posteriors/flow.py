"""An encoder as flexible as its networks."""

from collections.abc import Sequence

from pyro.distributions import Normal
from torch import Tensor
from torch.nn.functional import softplus

from pyrovae.distributions.flow import AutoregressiveSteps, FlowDistribution, check_flow
from pyrovae.posteriors.base import Posterior

__all__ = ["Flow"]


class Flow(Posterior):
    r"""Inverse autoregressive flow, fast in drawing and scoring its draws, conditioned on x.

    .. math:: e \sim N(\mu(x), \operatorname{diag}\sigma^2(x)), \quad z = f(e; h(x)), \quad
              q(z \mid x) = N(e)\, |\det \partial f / \partial e|^{-1}

    The encoder gives 2 D + ``context`` outputs: mu, sigma before softplus, and h. The density at a tensor other
    than its own last draw takes D passes of each map, or two with ``coupling``: so do estimators that cut the
    draws from the guide's parameters (STL, DReG) and ``priors.Vamp`` with this posterior.

    Args:
        num_transforms: Maps in the stack.
        hidden: Widths of each map's masked network.
        transform: ``"affine"``, or ``"spline"`` (rational-quadratic on [-5, 5], identity beyond).
        bins: Bins of a spline.
        coupling: Split coordinates in halves, where the density elsewhere is hot too.
        context: Size of h(x).
        min_scale: Added to sigma.

    Raises:
        ValueError: If the transform is another word, a size is not positive, or ``min_scale`` is negative.

    References:
        Improving Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016), section 4 and
        algorithm 1 (with a scale in place of their gate); Neural Spline Flows (Durkan et al., 2019).
    """

    def __init__(
        self,
        num_transforms: int = 2,
        hidden: Sequence[int] = (128, 128),
        transform: str = "affine",
        bins: int = 8,
        coupling: bool = False,
        context: int = 64,
        min_scale: float = 1e-4,
    ):
        super().__init__()
        check_flow("Flow", num_transforms, hidden, transform, bins)
        if context < 1 or not min_scale >= 0:
            raise ValueError(
                f"Flow needs context >= 1 and min_scale >= 0, found {context} and {min_scale}."
            )
        self.num_transforms, self.hidden, self.transform = num_transforms, tuple(hidden), transform
        self.bins, self.coupling, self.context, self.min_scale = bins, coupling, context, min_scale

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
