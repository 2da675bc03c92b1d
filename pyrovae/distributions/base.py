"""What distributions over latent vectors share, and the way into wrapped distributions."""

from typing import Any, ClassVar

import torch
from pyro.distributions import MaskedDistribution, TorchDistribution
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor
from torch.distributions import Independent

__all__ = ["WRAPPERS", "Broadcasting", "VectorDistribution", "double", "innermost"]

WRAPPERS = (Independent, ExpandedDistribution, MaskedDistribution)
"""Distributions that rearrange or mask the dimensions of another one."""


def innermost(distribution: Any, wrappers: Any = WRAPPERS) -> Any:
    """The distribution inside its wrappers.

    Args:
        distribution: Any distribution.
        wrappers: Class, or tuple of classes, of the wrappers to remove.

    Example:
        >>> import pyro.distributions as dist
        >>> innermost(dist.Normal(torch.zeros(3), 1.0).to_event(1))
        Normal(loc: torch.Size([3]), scale: torch.Size([3]))
    """
    while isinstance(distribution, wrappers):
        distribution = distribution.base_dist
    return distribution


def double(tensor: Tensor) -> Tensor:
    """The tensor in float64, or as it is on Apple's GPUs, which have no float64."""
    return tensor if tensor.device.type == "mps" else tensor.double()


class Broadcasting(TorchDistribution):
    """Base of distributions whose parameters broadcast against the batch shape: ``expand`` changes
    that alone, in a copy.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        new._batch_shape = torch.broadcast_shapes(self._batch_shape, torch.Size(batch_shape))
        return new


class VectorDistribution(Broadcasting):
    """Base of distributions over a vector.

    As its parameters are not expanded, components that a whole batch shares stay recognisable. A
    subclass with parameters of the batch shape expands those, too.
    """

    def check_sample(self, value: Tensor) -> None:
        """Raise a ValueError if validation is on and the value lies outside the support."""
        if self._validate_args:
            self._validate_sample(value)
