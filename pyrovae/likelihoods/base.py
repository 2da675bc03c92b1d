"""The contract of a likelihood."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

from pyrovae.declare import Declared
from pyrovae.likelihoods.positive import Positive
from pyrovae.nets import Recipe
from pyrovae.nets.sized import Sized

_BOUNDED = (type(constraints.boolean), constraints.interval, constraints.integer_interval)
"""Supports that infinite values and NaN are outside of already."""


class Likelihood(Declared, nn.Module):
    """Base of the likelihoods: ``likelihood(z)`` gives p(x | z), with event shape ``data_shape``.

    A new one says how many decoder outputs each element of x takes and what distribution they
    make::

        class Exponential(Likelihood):
            num_outputs = 1

            def distribution(self, outputs):                  # (*batch, 1, *data_shape)
                return dist.Exponential(softplus(outputs.squeeze(self.output_dim)))

    Elementwise distributions become joint over the data shape here. A likelihood also declares its
    data: ``support`` says which values it takes, ``domain`` and ``advice`` are the words of the
    error for other values.

    >>> from pyrovae import likelihoods
    >>> likelihoods.Bernoulli().in_support(torch.tensor([[0.0, 1.0], [0.5, 1.0]]))
    tensor([ True, False])
    """

    num_outputs: int = 1
    """Decoder outputs for each element of x."""
    discrete: bool = False
    """Whether x is discrete, so that log p(x | z) is a log-probability. Bits per dimension then
    need no scale.
    """
    support: Any = constraints.real
    """Which values an element of x may have, as a constraint of ``torch.distributions``."""
    domain: str = "is a density of finite real values"
    """What the error for other values says of the likelihood, after its name."""
    advice: str = "Remove or impute what is missing before training"
    """What that error tells the user to do."""

    missing: bool = False
    """Whether elements of x may be missing, so that the programs are of x and a mask."""

    data_shape: tuple[int, ...]
    decoder: Sized

    def bind(
        self, *, latent_dim: int, data_shape: tuple[int, ...], decoder: Recipe | nn.Module
    ) -> "Likelihood":
        """Take the sizes and the decoder; called once, by the VAE."""
        self.data_shape = tuple(data_shape)
        self.build()
        self.decoder = Sized(
            decoder, (latent_dim,), self.output_shape(), f"The decoder for {self!r}"
        )
        return self

    def build(self) -> None:
        """Make parameters and buffers, now that ``data_shape`` is known."""
        for part in self.children():
            if isinstance(part, Positive):
                part.build(self.data_shape)

    def output_shape(self) -> tuple[int, ...]:
        """Shape of the decoder's output for one datum: ``(num_outputs, *data_shape)``."""
        return (self.num_outputs, *self.data_shape)

    @property
    def output_dim(self) -> int:
        """The dimension of the decoder's output along which an element's ``num_outputs`` lie."""
        return -1 - len(self.data_shape)

    def forward(self, z: Tensor) -> Any:
        """p(x | z) for z of shape ``(*batch, latent_dim)``."""
        distribution = self.distribution(self.decoder(z))
        if not isinstance(distribution, TorchDistributionMixin):
            raise TypeError(
                f"{self!r} made a torch {type(distribution).__name__}, which Pyro cannot sample. "
                "Take the class of the same name from pyro.distributions."
            )
        rest = len(self.data_shape) - len(distribution.event_shape)
        return distribution.to_event(rest) if rest else distribution

    @abstractmethod
    def distribution(self, outputs: Tensor) -> Any:
        """The distribution made from decoder outputs ``(*batch, *output_shape)``, elementwise or
        joint.
        """

    def mean(self, distribution: Any) -> Tensor:
        """E[x | z], what a reconstruction shows."""
        return distribution.mean

    def in_support(self, x: Tensor) -> Tensor:
        """Which data lie in the support: ``(B,)`` booleans for x of shape ``(B, *data_shape)``.

        The result is a tensor, and no value is looked at on the host. The check can therefore run
        within a captured training step. Infinite values and NaN are in no support.
        """
        inside = self._inside(x)
        return inside.flatten(1).all(1) if inside.dim() > 1 else inside

    def _inside(self, x: Tensor) -> Tensor:
        inside = self.support.check(x)
        return inside if isinstance(self.support, _BOUNDED) else inside & torch.isfinite(x)

    def check(self, x: Tensor) -> None:
        """Raise an error if a value of x lies outside the support.

        Raises:
            ValueError: If there is such a value. The message names the first one and the
                alternatives.
        """
        inside = self._inside(x)
        if not inside.all():
            outside = ~inside
            share = outside.float().mean().item()
            raise ValueError(
                f"{type(self).__name__} {self.domain}, found {x[outside][0].item():.6g} among the "
                f"data ({share:.2%} of values). {self.advice}."
            )

    def reading(self, encoder: Any) -> Any:
        """The recipe or module of an encoder, with what it is to see of x put before it."""
        return encoder

    def read(self, data: Any) -> Any:
        """Data in the form that a user has, as tensors of x; what needs no reading as it is."""
        return data

    def show(self, x: Tensor, like: Any = None) -> Any:
        """x in the form that a user has; ``like`` are data in that form."""
        return x

    def fill(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x with a number of the support for each missing element, and the mask of the others."""
        raise NotImplementedError

    def initial_bias(self, mean: Tensor) -> Tensor | None:
        """Decoder outputs ``output_shape`` whose distribution has this mean, or None where there is
        no such rule.
        """
        return None

    def _first_outputs(self, values: Tensor) -> Tensor:
        """``output_shape``: a value for the first output of each element, zeros for the others."""
        bias = torch.zeros(self.output_shape(), dtype=values.dtype, device=values.device)
        bias.select(self.output_dim, 0).copy_(values)
        return bias


def solve_increasing(
    function: Callable[[Tensor], Tensor], target: Tensor, low: float = -100.0, high: float = 100.0
) -> Tensor:
    """Where an increasing elementwise function takes the values ``target``, by bisection to
    rounding.
    """
    left, right = torch.full_like(target, low), torch.full_like(target, high)
    with torch.no_grad():
        for _ in range(60):
            middle = (left + right) / 2
            below = function(middle) < target
            left, right = torch.where(below, middle, left), torch.where(below, right, middle)
    return (left + right) / 2
