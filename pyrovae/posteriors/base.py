"""The contract of a posterior."""

from abc import ABC, abstractmethod
from typing import Any, Self

from torch import Tensor, nn

from pyrovae.declare import Declared
from pyrovae.nets import Recipe
from pyrovae.nets.sized import Sized


class Posterior(Declared, nn.Module, ABC):
    """Base of the posteriors: ``posterior(x)`` is q(z | x), with event shape ``(latent_dim,)``.

    A new posterior is a subclass that says how many outputs of the encoder it takes, and which
    distribution it makes of them. If it does not live on all of R^D, it says so in ``space``: the
    VAE pairs a posterior with priors of the same space.

    Example:
        >>> import pyro.distributions as dist
        >>> import torch
        >>> from pyrovae import nets
        >>> class UnitNormal(Posterior):
        ...     def output_size(self):
        ...         return self.latent_dim
        ...     def distribution(self, outputs):  # (*batch, output_size)
        ...         return dist.Normal(outputs, 1.0).to_event(1)
        >>> q = UnitNormal().bind(latent_dim=2, data_shape=(28, 28), encoder=nets.MLP(16))
        >>> q(torch.zeros(5, 28, 28)).sample().shape
        torch.Size([5, 2])
    """

    space: str = "real"
    """Where z lives: "real", "sphere", "one-hot", "simplex", or a name of your own."""
    has_density: bool = True
    """Whether q(z | x) has a density (or probabilities); a point mass has none."""

    latent_dim: int
    data_shape: tuple[int, ...]
    encoder: Sized

    def bind(
        self, *, latent_dim: int, data_shape: tuple[int, ...], encoder: Recipe | nn.Module
    ) -> Self:
        """Take the sizes and the encoder. The VAE calls this once."""
        self.latent_dim, self.data_shape = latent_dim, tuple(data_shape)
        self.build()
        self.encoder = Sized(
            encoder, self.data_shape, (self.output_size(),), f"The encoder for {self!r}"
        )
        return self

    def build(self) -> None:
        """Make parameters and buffers, now that the sizes are known."""

    def forward(self, x: Tensor) -> Any:
        """q(z | x) for x of shape ``(*batch, *data_shape)``."""
        return self.distribution(self.encoder(x))

    @abstractmethod
    def output_size(self) -> int:
        """How many outputs of the encoder the distribution takes."""

    @abstractmethod
    def distribution(self, outputs: Tensor) -> Any:
        """The distribution made of encoder outputs ``(*batch, output_size)``."""


def check_not_negative(min_scale: float) -> float:
    """The value; a ValueError if it is negative."""
    if not min_scale >= 0:
        raise ValueError(f"min_scale must not be negative, found {min_scale}.")
    return min_scale
