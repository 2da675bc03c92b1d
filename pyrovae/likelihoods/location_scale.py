"""What likelihoods of real values with additive noise share."""

from abc import abstractmethod
from typing import Any

from torch import Tensor

from pyrovae.likelihoods.base import Likelihood
from pyrovae.likelihoods.positive import Positive

__all__ = ["LocationScale"]


class LocationScale(Likelihood):
    """Base of :class:`Gaussian`, :class:`Laplace` and :class:`StudentT`: a location from the
    decoder, and a scale.

    A subclass makes ``self.scale_of`` and writes :meth:`noise`.
    """

    scale_of: Positive

    def use_scale(self, scale_of: Positive) -> None:
        """Take the scale, and count the decoder outputs."""
        self.scale_of = scale_of
        self.num_outputs = 1 + scale_of.num_outputs

    def distribution(self, outputs: Tensor):
        loc, *raw = outputs.unbind(self.output_dim)
        return self.noise(loc, self.scale_of(*raw))

    @abstractmethod
    def noise(self, loc: Tensor, scale: Tensor) -> Any:
        """Elementwise distribution with this location and scale, which broadcast together."""

    def initial_bias(self, mean: Tensor) -> Tensor:
        return self._first_outputs(mean)
