"""Guides of several stochastic layers: top-down, bottom-up, and the ladder."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions as dist
from torch import Tensor, nn

from pyrovae.distributions.base import innermost
from pyrovae.models.base import check_size, unbound
from pyrovae.models.joint import JointPosterior
from pyrovae.nets import MLP, Recipe
from pyrovae.nets.sized import Sized
from pyrovae.posteriors import DiagonalNormal, Posterior

__all__ = ["BottomUp", "Ladder", "LayeredGuide", "TopDown", "merge"]

Draw = Callable[[int, Any], Tensor]
"""From the number of a layer, 1 next to the data, and its distribution to a draw."""


class LayeredGuide(nn.Module, ABC):
    """q(z1, ..., zL | x) as a program that draws one layer after the other.

    Args:
        posterior: Family of every layer; None for diagonal normals.
        conditional: Family of p(z1 | z2), p(z2 | z3), ...; likewise.
        encoder: Recipe of networks that see x.
        between: Recipe of networks between layers.
        latent_dims: Dimensions of z1, ..., zL.
        data_shape: Shape of one datum.
        features: Number of features that networks make of x.
    """

    first: Any
    """The module from x to the distribution of the layer that is drawn first."""

    def __init__(
        self,
        posterior: Posterior | None,
        conditional: Posterior | None,
        encoder: Recipe,
        between: Recipe,
        latent_dims: Sequence[int],
        data_shape: tuple[int, ...],
        features: int,
    ):
        super().__init__()
        self.families = (posterior, conditional)  # in a tuple, so that they are no submodules
        self.features = check_size("features", features)
        self.latent_dims, self.data_shape = tuple(latent_dims), data_shape
        self.build(encoder, between)

    def bound(self, layer: int, data_shape: tuple[int, ...], encoder: Recipe) -> Posterior:
        """The family's posterior of a layer, given inputs of a shape."""
        posterior = unbound(self.families[0], Posterior, DiagonalNormal)
        latent_dim = self.latent_dims[layer - 1]
        return posterior.bind(latent_dim=latent_dim, data_shape=data_shape, encoder=encoder)

    @abstractmethod
    def build(self, encoder: Recipe, between: Recipe) -> None:
        """Make the networks."""

    @abstractmethod
    def forward(self, x: Tensor, draw: Draw, conditionals: Sequence[Any]) -> list[Tensor]:
        """Draw all layers; their values, z1 first."""

    @property
    @abstractmethod
    def parts(self) -> list[Any]:
        """The posterior of each layer, z1 first."""


class TopDown(LayeredGuide):
    r"""q(zL | x) and then each layer given x and the one above, as p(z) draws them."""

    def build(self, encoder: Recipe, between: Recipe) -> None:
        layers = len(self.latent_dims)
        self.first = self.bound(layers, self.data_shape, encoder)
        self.lower = nn.ModuleList(
            JointPosterior(
                self.families[0], encoder, between, latent_dim=self.latent_dims[n - 1],
                data_shape=self.data_shape, given_dim=self.latent_dims[n],
                features=self.features, role=f"q(z{n} | x, z{n + 1})",
            )
            for n in range(1, layers)
        )  # fmt: skip

    def forward(self, x: Tensor, draw: Draw, conditionals: Sequence[Any]) -> list[Tensor]:
        z = [draw(len(self.latent_dims), self.first(x))]
        for n in range(len(self.lower), 0, -1):
            z.insert(0, draw(n, self.lower[n - 1](x, z[0])))
        return z

    @property
    def parts(self) -> list[Any]:
        return [*(lower.posterior for lower in self.lower), self.first]


class BottomUp(LayeredGuide):
    r"""q(z1 | x) and then each layer given the one below."""

    def build(self, encoder: Recipe, between: Recipe) -> None:
        self.first = self.bound(1, self.data_shape, encoder)
        self.upper = nn.ModuleList(
            self.bound(n + 1, (self.latent_dims[n - 1],), between)
            for n in range(1, len(self.latent_dims))
        )

    def forward(self, x: Tensor, draw: Draw, conditionals: Sequence[Any]) -> list[Tensor]:
        z = [draw(1, self.first(x))]
        for n, posterior in enumerate(self.upper, start=2):
            z.append(draw(n, posterior(z[-1])))
        return z

    @property
    def parts(self) -> list[Any]:
        return [self.first, *self.upper]


class Ladder(LayeredGuide):
    r"""Features of x go up; draws come down, merged with p of the layer above by precision."""

    def build(self, encoder: Recipe, between: Recipe) -> None:
        for role, part in zip(("posterior", "conditional"), self.families, strict=True):
            if part is not None and not isinstance(part, DiagonalNormal):
                raise ValueError(
                    f"A ladder merges normals by their precisions, so {role} must be "
                    f"posteriors.DiagonalNormal, found {part!r}."
                )
        self.first = _Tower(
            self.bound(len(self.latent_dims), (self.features,), MLP()),
            encoder, between, len(self.latent_dims), self.data_shape, self.features,
        )  # fmt: skip
        self.heads = nn.ModuleList(
            self.bound(n, (self.features,), MLP()) for n in range(1, len(self.latent_dims))
        )

    def forward(self, x: Tensor, draw: Draw, conditionals: Sequence[Any]) -> list[Tensor]:
        seen = self.first.climb(x)
        z = [draw(len(seen), self.first.head(seen[-1]))]
        for n in range(len(self.heads), 0, -1):
            above, below = conditionals[n - 1](z[0]), self.heads[n - 1](seen[n - 1])
            z.insert(0, draw(n, merge(above, below)))
        return z

    @property
    def parts(self) -> list[Any]:
        return [*self.heads, self.first.head]


class _Tower(nn.Module):
    """The deterministic way up, and the distribution of the top layer at its end."""

    has_density = True

    def __init__(
        self,
        head: Posterior,
        encoder: Recipe,
        between: Recipe,
        layers: int,
        data_shape: tuple[int, ...],
        features: int,
    ):
        super().__init__()
        self.head, self.space = head, head.space
        inputs = [data_shape, *[(features,)] * (layers - 1)]
        recipes = [encoder, *[between] * (layers - 1)]
        self.steps = nn.ModuleList(
            Sized(recipe, shape, (features,), f"The network to layer {n + 1}")
            for n, (recipe, shape) in enumerate(zip(recipes, inputs, strict=True))
        )

    def climb(self, x: Tensor) -> list[Tensor]:
        """Features of x for each layer, ``(*batch, features)``."""
        seen = [x]
        for step in self.steps:
            seen.append(step(seen[-1]).relu())
        return seen[1:]

    def forward(self, x: Tensor) -> Any:
        return self.head(self.climb(x)[-1])


def merge(above: Any, below: Any) -> Any:
    r"""The normalised product of two diagonal normals.

    .. math:: \sigma^{-2} = \sigma_1^{-2} + \sigma_2^{-2}, \qquad
              \mu = \sigma^2 (\mu_1 \sigma_1^{-2} + \mu_2 \sigma_2^{-2})

    References:
        Ladder Variational Autoencoders (Sønderby et al., 2016), equations 17 to 19,
        `arXiv:1602.02282 <https://arxiv.org/abs/1602.02282>`_.

    Example:
        >>> import torch
        >>> one, two = (dist.Normal(torch.tensor([m]), 1.0).to_event(1) for m in (0.0, 2.0))
        >>> merged = merge(one, two)
        >>> merged.mean, merged.variance
        (tensor([1.]), tensor([0.5000]))
    """
    normals = [innermost(d) for d in (above, below)]
    weights = [normal.scale.square().reciprocal() for normal in normals]
    precision = weights[0] + weights[1]
    loc = (weights[0] * normals[0].loc + weights[1] * normals[1].loc) / precision
    return dist.Normal(loc, precision.rsqrt(), validate_args=False).to_event(1)
