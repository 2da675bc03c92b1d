"""A posterior that sees more than x."""

from typing import Any

from torch import Tensor, nn

from pyrovae.models.base import check_size, join, unbound
from pyrovae.nets import MLP, Recipe
from pyrovae.nets.sized import Sized
from pyrovae.posteriors import DiagonalNormal, Posterior

__all__ = ["JointPosterior", "as_recipe", "conditional_prior"]


class JointPosterior(nn.Module):
    r"""q(z | x, y): an encoder makes features of x, and a second network sees them beside y.

    The encoder runs once for each x, however many particles y holds.

    Args:
        posterior: The family of q(z | x, y); None for a diagonal normal.
        encoder: Recipe of the network from ``data_shape`` to the features.
        joint: Recipe of the network from features and y to the parameters of z.
        latent_dim: Dimension of z.
        data_shape: Shape of one x.
        given_dim: Dimension of y.
        features: Number of features.
        role: What errors call the distribution, such as "q(z | x, y)".
    """

    def __init__(
        self,
        posterior: Posterior | None,
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
        posterior = unbound(posterior, Posterior, DiagonalNormal)
        features = check_size("features", features)
        self.features = Sized(encoder, data_shape, (features,), f"The encoder for {role}")
        self.posterior = posterior.bind(
            latent_dim=latent_dim, data_shape=(features + given_dim,), encoder=joint
        )

    def forward(self, x: Tensor, given: Tensor) -> Any:
        """q(z | x, given) for x ``(B, *data_shape)`` and given ``(*K, B, given_dim)``."""
        return self.posterior(join(self.features(x).relu(), given))


def as_recipe(name: str, value: Any, *default: int) -> Recipe:
    """A recipe, or an MLP of the default widths for None.

    Raises:
        TypeError: If it is not a recipe. A module does not do where several networks are made.
    """
    if value is None:
        return MLP(*default)
    if not isinstance(value, Recipe):
        raise TypeError(
            f"{name} must be a recipe such as nets.MLP(300, 300), found {type(value).__name__}."
        )
    return value


def conditional_prior(
    part: Posterior | None, role: str, *, latent_dim: int, given_dim: int, encoder: Recipe
) -> Posterior:
    """A posterior that serves as prior of z given another variable; None for a diagonal normal.

    Raises:
        ValueError: If it is a point mass, under which all other values of z are impossible.
    """
    part = unbound(part, Posterior, DiagonalNormal)
    if not part.has_density:
        raise ValueError(
            f"{role} must have a density, found {part!r}, a point mass. "
            "Use posteriors.DiagonalNormal or another."
        )
    return part.bind(latent_dim=latent_dim, data_shape=(given_dim,), encoder=encoder)
