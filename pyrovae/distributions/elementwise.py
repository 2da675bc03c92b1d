"""What the distributions of independent elements share: parameters that keep their own, small
shapes.
"""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from pyrovae.distributions.base import Broadcasting

__all__ = ["Elementwise"]


class Elementwise(Broadcasting):
    """Base of univariate distributions whose parameters are broadcast only inside ``log_prob``.

    torch expands every parameter to the full batch shape at construction, and then takes logarithms
    and log-gammas of the expanded copies. Under importance weighting the full shape is (K, B, ...),
    while a shared scale is a scalar and the data are (B, ...): here each function is evaluated at
    the smallest shape that it depends on. ``expand`` changes the batch shape alone.

    A subclass passes its parameters, tensors that broadcast together, by name, and writes two
    methods::

        class Exponential(Elementwise):
            support = constraints.nonnegative

            def __init__(self, rate):
                super().__init__(rate=rate)

            def density(self, value):                        # any broadcast of value and parameters
                return self.rate.log() - self.rate * value

            def draw(self, rate):                             # parameters, expanded
                return torch.empty_like(rate).exponential_() / rate
    """

    support: Any = constraints.real
    _names: tuple[str, ...]

    def __init__(self, **parameters: Tensor):
        self._names = tuple(parameters)
        for name, value in parameters.items():
            setattr(self, name, value)
        shape = torch.broadcast_shapes(*(value.shape for value in parameters.values()))
        super().__init__(shape, validate_args=False)

    @abstractmethod
    def density(self, value: Tensor) -> Tensor:
        """log p(value), of the broadcast shape of the value and whichever parameters it takes."""

    @abstractmethod
    def draw(self, *parameters: Tensor) -> Tensor:
        """One draw for each element of the expanded parameters, in the order of construction."""

    def log_prob(self, value: Tensor) -> Tensor:
        result = self.density(value)
        shape = torch.broadcast_shapes(value.shape, self._batch_shape)
        return result if result.shape == shape else result.expand(shape)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008  # torch's own signature
        with torch.no_grad():
            return self.draw(*self._expanded(sample_shape))

    def _expanded(self, sample_shape: Any = ()) -> list[Tensor]:
        shape = torch.Size(sample_shape) + self._batch_shape
        return [getattr(self, name).expand(shape) for name in self._names]
