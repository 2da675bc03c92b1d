"""The contract of a prior."""

from abc import ABC, abstractmethod
from typing import Any, Self

from torch import Tensor, nn

from pyrovae.declare import Declared


class Prior(Declared, nn.Module, ABC):
    """Base of the priors: ``prior()`` is p(z), with batch shape ``()`` and event shape ``(D,)``.

    A new prior is a subclass with ``forward``, and with ``build`` if it has parameters or buffers.
    If it does not live on all of R^D, it says so in ``space``: the VAE pairs a prior with
    posteriors of the same space.

    Example:
        >>> import pyro.distributions as dist
        >>> import torch
        >>> class Wide(Prior):
        ...     def __init__(self, scale: float = 3.0):
        ...         super().__init__()
        ...         self.scale = scale
        ...     def build(self):
        ...         self.register_buffer("zeros", torch.zeros(self.latent_dim))
        ...     def forward(self):
        ...         return dist.Normal(self.zeros, self.scale).to_event(1)
        >>> Wide(2.0).bind(latent_dim=3, data_shape=(28, 28))().sample((5,)).shape
        torch.Size([5, 3])
    """

    space: str = "real"
    """Where z lives: "real", "sphere", "one-hot", "simplex", or a name of your own."""

    starts_at_data: bool = False
    """Whether a VAE's ``initialize_from(data)`` also calls :meth:`initialize_from`."""

    latent_dim: int
    data_shape: tuple[int, ...]
    posterior: Any

    def bind(self, *, latent_dim: int, data_shape: tuple[int, ...], posterior: Any = None) -> Self:
        """Take the sizes, and the posterior for a prior that needs it. The VAE calls this once."""
        self.latent_dim, self.data_shape = latent_dim, tuple(data_shape)
        # Not as a submodule: its parameters belong to the posterior alone.
        object.__setattr__(self, "posterior", posterior)
        self.build()
        return self

    def build(self) -> None:
        """Make parameters and buffers, now that ``latent_dim`` and ``data_shape`` are known."""

    def initialize_from(self, data: Tensor) -> None:
        """Set initial values from data ``(N, *data_shape)``; most priors have no use for them."""

    @abstractmethod
    def forward(self) -> Any:
        """The distribution p(z)."""
