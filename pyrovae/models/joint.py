"""A posterior that sees more than x."""

from torch import Tensor, broadcast_shapes, cat, nn

from pyrovae.likelihoods import Likelihood
from pyrovae.models.base import check_size
from pyrovae.nets import Recipe
from pyrovae.nets.sized import Sized
from pyrovae.posteriors import Posterior

__all__ = ["JointPosterior", "decoded", "expect", "join", "with_density"]


class JointPosterior(nn.Module):
    r"""q(z | x, y) of a posterior part: features of x, joined by y, through one more network.

    The encoder sees each x once, however many particles y comes in.

    Args:
        posterior: An unbound part.
        encoder: Recipe from ``data_shape`` to features.
        joint: Recipe from features and y to the part's outputs.
        latent_dim, data_shape, given_dim: Sizes of z, x and y.
        features: Number of features.
        role: What to call it in errors.
    """

    def __init__(
        self,
        posterior: Posterior,
        encoder: Recipe,
        joint: Recipe,
        *,
        latent_dim: int,
        data_shape: tuple[int, ...],
        given_dim: int,
        features: int,
        role: str,
    ):
        super().__init__()
        features = check_size("features", features)
        self.features = Sized(encoder, data_shape, (features,), f"The encoder for {role}")
        self.posterior = posterior.bind(
            latent_dim=latent_dim, data_shape=(features + given_dim,), encoder=joint
        )

    def forward(self, x: Tensor, given: Tensor):
        """q(z | x, given) for ``(B, *data_shape)`` and ``(*K, B, given_dim)``."""
        return self.posterior(join(self.features(x).relu(), given))


def join(*tensors: Tensor) -> Tensor:
    """Concatenate along the last dimension, the others broadcast."""
    batch = broadcast_shapes(*(t.shape[:-1] for t in tensors))
    return cat([t.expand(*batch, t.shape[-1]) for t in tensors], -1)


def expect(kind: type, name: str, value: object) -> None:
    """Raise a TypeError unless ``value`` is a ``kind``."""
    if not isinstance(value, kind):
        raise TypeError(
            f"{name} must be a {kind.__module__}.{kind.__name__}, found {type(value).__name__}."
        )


def with_density(part: Posterior, role: str) -> Posterior:
    """The part, or a ValueError if it is a point mass: as a prior it would rule out all draws of the guide."""
    if not part.has_density:
        raise ValueError(
            f"{role} must have a density, found {part!r}, a point mass. Use posteriors.DiagonalNormal or another."
        )
    return part


def decoded(likelihood: Likelihood, z: Tensor, *, mean: bool) -> Tensor:
    """E[x | z], or a draw from p(x | z)."""
    distribution = likelihood(z)
    return likelihood.mean(distribution) if mean else distribution.sample()
