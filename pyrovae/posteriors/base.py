"""The contract of a posterior."""

from abc import abstractmethod
from typing import Any, Self

from torch import Tensor, nn

from pyrovae.declare import Declared
from pyrovae.nets import Recipe
from pyrovae.nets.sized import Sized


class Posterior(Declared, nn.Module):
    """Base of the posteriors: ``posterior(x)`` gives q(z | x), with event shape ``(latent_dim,)``.

    A new one says how many encoder outputs it takes and what distribution they make::

        class UnitNormal(Posterior):
            def output_size(self):
                return self.latent_dim

            def distribution(self, outputs):                  # (*batch, output_size)
                return dist.Normal(outputs, 1.0).to_event(1)

    A posterior that does not live on all of R^D says so in ``space``; the VAE pairs it with priors of that space.
    """

    space: str = "real"
    """Where z lives: "real", "sphere", "one-hot", "simplex", or a name of one's own."""
    has_density: bool = True
    """Whether q(z | x) is a density (or probability), not a point mass."""

    latent_dim: int
    data_shape: tuple[int, ...]
    encoder: Sized

    def bind(
        self, *, latent_dim: int, data_shape: tuple[int, ...], encoder: Recipe | nn.Module
    ) -> Self:
        """Take the sizes and the encoder; called once, by the VAE."""
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
        """The distribution made from encoder outputs ``(*batch, output_size)``."""
