"""Counts whose means are proportional to the total count of the datum."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyrovae.distributions.base import Broadcasting

__all__ = ["GivenTotal"]


class GivenTotal(Broadcasting):
    r"""The distribution p(x | n) of counts given an exposure n, which is read from the datum.

    .. math:: n = \max\big(1, \sum_i x_i\big)

    For each n this is a distribution over all counts x, those with another total included;
    ``log_prob(x)`` evaluates it at the x whose total gave n. The total is thus conditioned on as a
    covariate, not modelled.

    Args:
        given: From log n, ``(*batch, 1, ..., 1)``, to the distribution, batch shape
            ``(*batch, *event)``.
        event_dim: Dimensions of one datum.
        typical: The n used by ``sample`` and ``mean``, which have no datum to read it from.
        like: A tensor of shape ``(*batch, *event)``, which gives shapes, dtype and device.
    """

    def __init__(
        self, given: Callable[[Tensor], Any], event_dim: int, typical: Tensor, like: Tensor
    ):
        self.given, self.typical = given, typical
        self._like_ones = (1,) * event_dim
        split = like.dim() - event_dim
        super().__init__(like.shape[:split], like.shape[split:], validate_args=False)

    @property
    def support(self):
        return self._typical().support

    def log_prob(self, value: Tensor) -> Tensor:
        dims = len(self._event_shape)
        total = value.flatten(value.dim() - dims).sum(-1).clamp(min=1)
        result = (
            self.given(total.log().reshape(*total.shape, *self._like_ones))
            .to_event(dims)
            .log_prob(value)
        )
        return result.expand(torch.broadcast_shapes(result.shape, self._batch_shape))

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008  # torch's own signature
        return self._typical().expand(self._batch_shape).sample(sample_shape)

    @property
    def mean(self) -> Tensor:
        return self._typical().mean.expand(self._batch_shape + self._event_shape)

    def _typical(self) -> Any:
        return self.given(self.typical.log()).to_event(len(self._event_shape))
