"""Black and white elements as one event, scored fast in compiled graphs."""

import math
from typing import Any

import torch
from pyro.distributions import Independent
from torch import Tensor
from torch.nn.functional import pad

from pyrovae.distributions.special import capturing

__all__ = ["JointBernoulli"]

_WIDTH = 16  # elements side by side, a vector register's worth
# Factors in a product: each lies in [1, 2], and 2^64 is far below float32's largest number.
_DEPTH = 64


class JointBernoulli(Independent):
    r"""Independent Bernoulli elements; as :class:`~pyro.distributions.Independent` of a Bernoulli
    by logits.

    In a captured graph the log-normaliser is taken of products,

    .. math:: \sum_i \log(1 + e^{l_i}) = \sum_i \max(l_i, 0) + \sum_g \log \prod_{i \in g} (1 +
              e^{-|l_i|}),

    one logarithm for up to 64 elements: the same number to rounding, several times faster once
    compiled. Eagerly the products would be slower than torch's own kernel, which is used there.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        logits = self.base_dist.logits
        if not capturing() or logits.dtype not in (torch.float32, torch.float64):
            return super().log_prob(value)
        event = len(self.event_shape)
        logits, value = logits.flatten(logits.dim() - event), value.flatten(value.dim() - event)
        result: Any = _ByProducts.apply(logits, value)
        return result


class _ByProducts(torch.autograd.Function):
    """``(*batch)`` log-probabilities of ``(*batch, D)`` values, which broadcast; gradients in their
    plain form.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(logits, value)
        size = logits.shape[-1]
        depth = min(_DEPTH, math.ceil(size / _WIDTH))
        blocks = math.ceil(size / (_WIDTH * depth))
        tails = torch.exp(-logits.abs())
        missing = blocks * depth * _WIDTH - size
        if missing:
            tails = pad(tails, (0, missing))  # factors of one
        products = (1 + tails).unflatten(-1, (blocks, depth, _WIDTH)).prod(-2)
        return (value * logits - logits.clamp(min=0)).sum(-1) - products.log().sum((-1, -2))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        logits, value = ctx.saved_tensors
        of_logits, of_value, each = None, None, gradients[0].unsqueeze(-1)
        if ctx.needs_input_grad[0]:
            of_logits = (each * (value - logits.sigmoid())).sum_to_size(logits.shape)
        if ctx.needs_input_grad[1]:
            of_value = (each * logits).sum_to_size(value.shape)
        return of_logits, of_value
