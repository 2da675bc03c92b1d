"""The contract of a prior."""

from abc import abstractmethod
from typing import Any, Self

from torch import Tensor, nn

from pyrovae.declare import Declared


class Prior(Declared, nn.Module):
    """Base of the priors: ``prior()`` gives p(z), with empty batch shape and event shape ``(latent_dim,)``.

    A new one writes ``forward``, and ``build`` if it has parameters to size. This is a whole prior::

        class Wide(Prior):
            def __init__(self, scale=3.0):
                super().__init__()
                self.scale = scale

            def forward(self):
                return dist.Normal(self.zeros, self.scale).to_event(1)

            def build(self):
                self.register_buffer("zeros", torch.zeros(self.latent_dim))

    A prior that does not live on all of R^D says so in ``space``; the VAE pairs it with posteriors of that space.
    """

    space: str = "real"
    """Where z lives: "real", "sphere", "one-hot", "simplex", or a name of one's own."""

    starts_at_data: bool = False
    """Whether a VAE's ``initialize_from(data)`` hands the data to :meth:`initialize_from`, too."""

    latent_dim: int
    data_shape: tuple[int, ...]
    posterior: Any

    def bind(self, *, latent_dim: int, data_shape: tuple[int, ...], posterior: Any = None) -> Self:
        """Take the sizes, and the posterior for a prior that needs it; called once, by the VAE."""
        self.latent_dim, self.data_shape = latent_dim, tuple(data_shape)
        # Not a submodule: its parameters belong to the posterior alone.
        object.__setattr__(self, "posterior", posterior)
        self.build()
        return self

    def build(self) -> None:
        """Make parameters and buffers, now that ``latent_dim`` and ``data_shape`` are known."""

    def initialize_from(self, data: Tensor) -> None:
        """Start from data, ``(N, *data_shape)``, where the prior has a rule for it; else do nothing."""

    @abstractmethod
    def forward(self) -> Any:
        """The distribution p(z)."""
