"""What likelihoods of real values with additive noise share."""

from abc import abstractmethod
from typing import Any

import torch
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

    def build(self) -> None:
        self.scale_of.build(self.data_shape)

    def distribution(self, outputs: Tensor):
        loc, *raw = outputs.unbind(self.output_dim)
        return self.noise(loc, self.scale_of(*raw))

    @abstractmethod
    def noise(self, loc: Tensor, scale: Tensor) -> Any:
        """Elementwise distribution with this location and scale, which broadcast together."""

    def initial_bias(self, mean: Tensor) -> Tensor:
        bias = torch.zeros(self.output_shape(), dtype=mean.dtype, device=mean.device)
        bias.select(self.output_dim, 0).copy_(mean)
        return bias
