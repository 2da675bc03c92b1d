"""Logistic distributions rounded to grey levels, alone and in mixtures with coupled colour
channels.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import softplus

from pyrovae.distributions.base import Broadcasting
from pyrovae.distributions.elementwise import Elementwise
from pyrovae.distributions.levels import GreyLevels, from_levels, to_levels

__all__ = ["DiscretizedLogistic", "DiscretizedLogisticMixture", "clipped_mean"]


def _log_prob(value: Tensor, loc: Tensor, scale: Tensor, num_levels: int) -> Tensor:
    r"""log of the logistic's mass between the two edges of the value's level; the outer levels
    reach to infinity.

    With the edges at a > b in units of the scale,
    :math:`\sigma(a) - \sigma(b) = \sigma(a)\,\sigma(-b)\,(1 - e^{b - a})` exactly: no difference of
    nearly equal numbers is taken, however narrow or far the logistic.
    """
    step = 1 / (num_levels - 1)
    rate, offset = 1 / scale, value - loc
    # The half step in two numbers: at a level's edge the first cancels, and its rounding would be
    # left.
    half = float(np.float32(0.5 * step)) if loc.dtype == torch.float32 else 0.5 * step
    rest = 0.5 * step - half
    # One where the level has an edge below, or above: factors, since torch.where is slow and these
    # are finite.
    edge_below, edge_above = (
        (value > 0.5 * step).to(loc.dtype),
        (value < 1 - 0.5 * step).to(loc.dtype),
    )
    above = softplus(-(offset + half + rest) * rate, threshold=50.0) * edge_above  # -log sigma(a)
    below = softplus((offset - half - rest) * rate, threshold=50.0) * edge_below  # -log sigma(-b)
    width = torch.log(-torch.expm1(-step * rate)) * (edge_above * edge_below)
    return width - above - below


def _draw(loc: Tensor, scale: Tensor, num_levels: int) -> Tensor:
    u = torch.rand_like(loc).clamp(torch.finfo(loc.dtype).tiny, 1 - torch.finfo(loc.dtype).eps)
    return from_levels(to_levels(loc + scale * (u.log() - torch.log1p(-u)), num_levels), num_levels)


def clipped_mean(loc: Tensor, scale: Tensor) -> Tensor:
    r"""Mean of the logistic clipped to [0, 1], :math:`\int_0^1 \sigma((\mu - t)/s)\, dt`."""
    return scale * (softplus(loc / scale) - softplus((loc - 1) / scale))


class DiscretizedLogistic(Elementwise):
    r"""The probability that a logistic variable, rounded to the grey levels, gives this one.

    .. math:: p(x) = \sigma\Big(\frac{x + h - \mu}{s}\Big) - \sigma\Big(\frac{x - h - \mu}{s}\Big),
              \qquad h = \frac1{2 (L - 1)}

    for x = k/(L - 1); the first level takes all mass below it and the last all above.

    References:
        Improving Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016),
        section 5.1, `arXiv:1606.04934 <https://arxiv.org/abs/1606.04934>`_.

    Args:
        loc, scale: In units of the stored values, where white is 1.
        num_levels: L.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor, scale: Tensor, num_levels: int = 256):
        super().__init__(loc=loc, scale=scale)
        self.num_levels = num_levels

    @property
    def support(self) -> GreyLevels:
        return GreyLevels(self.num_levels)

    def density(self, value: Tensor) -> Tensor:
        return _log_prob(value, self.loc, self.scale, self.num_levels)

    def draw(self, loc: Tensor, scale: Tensor) -> Tensor:
        return _draw(loc, scale, self.num_levels)

    @property
    def mean(self) -> Tensor:
        r"""Exact: :math:`E[k] = \sum_{j=1}^{L-1} P(k \ge j)`."""
        total = torch.zeros_like(self.loc + self.scale)
        for j in range(1, self.num_levels):
            total = total + torch.sigmoid(
                (self.loc - (j - 0.5) / (self.num_levels - 1)) / self.scale
            )
        return (total / (self.num_levels - 1)).expand(self._batch_shape)


class DiscretizedLogisticMixture(Broadcasting):
    r"""A mixture of M discretised logistics for each element or, with ``coupling``, for each colour
    pixel.

    .. math:: p(x) = \prod_i \sum_{m=1}^M \pi_{mi} \prod_c \mathrm{DL}(x_{ci};\ \tilde\mu_{mci},
              s_{mci})

    With coupling there are three channels c, which share the component: red first, then green given
    red, then blue given both,

    .. math:: \tilde\mu_r = \mu_r, \qquad \tilde\mu_g = \mu_g + \alpha\, (x_r - \tfrac12), \qquad
              \tilde\mu_b = \mu_b + \beta\, (x_r - \tfrac12) + \gamma\, (x_g - \tfrac12).

    The halves are the zero of the paper's [-1, 1] pixels. Without coupling there is no channel axis
    C.

    References:
        PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other
        Modifications (Salimans et al., 2017), equations 2 and 3,
        `arXiv:1701.05517 <https://arxiv.org/abs/1701.05517>`_.

    Args:
        logits: ``(*batch, M, *pixels)``, of the weights.
        loc, scale: ``(*batch, M, *pixels)`` or, with coupling, ``(*batch, M, 3, *pixels)``, in
            units of the stored values, where white is 1.
        coupling: ``(*batch, M, 3, *pixels)``: alpha, beta, gamma; or None.
        num_levels: L.
        num_pixel_dims: Length of ``pixels``.

    Raises:
        ValueError: If there is coupling and not three channels.
    """

    def __init__(
        self,
        logits: Tensor,
        loc: Tensor,
        scale: Tensor,
        coupling: Tensor | None = None,
        *,
        num_levels: int = 256,
        num_pixel_dims: int = 2,
    ):
        self.logits, self.loc, self.scale, self.coupling = logits, loc, scale, coupling
        self.num_levels = num_levels
        # Components lie along this axis once channels, if any, are gone; channels, before that.
        self._axis = -1 - num_pixel_dims
        pixels = logits.shape[logits.dim() - num_pixel_dims :]
        event = pixels if coupling is None else (3, *pixels)
        if tuple(loc.shape[loc.dim() - len(event) :]) != tuple(event):
            raise ValueError(
                f"Expected loc to end in {tuple(event)}, found shape {tuple(loc.shape)}."
            )
        super().__init__(
            logits.shape[: logits.dim() - num_pixel_dims - 1],
            torch.Size(event),
            validate_args=False,
        )

    @property
    def support(self):
        return constraints.independent(GreyLevels(self.num_levels), len(self._event_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        x = value.unsqueeze(-1 - len(self._event_shape))  # (*batch, 1, *event)
        if self.coupling is None:
            each = _log_prob(x, self.loc, self.scale, self.num_levels)
        else:
            r, g, _ = (x - 0.5).unbind(self._axis)
            alpha, beta, gamma = self.coupling.unbind(self._axis)
            red, green, blue = self.loc.unbind(self._axis)
            means = (red, green + alpha * r, blue + beta * r + gamma * g)
            parts = zip(x.unbind(self._axis), means, self.scale.unbind(self._axis), strict=True)
            each = sum(_log_prob(*part, self.num_levels) for part in parts)
        pixels = (each + self.logits.log_softmax(self._axis)).logsumexp(self._axis)
        total = pixels.flatten(pixels.dim() + self._axis + 1).sum(-1)
        return total.expand(torch.broadcast_shapes(total.shape, self._batch_shape))

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008  # torch's own signature
        with torch.no_grad():
            batch = torch.Size(sample_shape) + self._batch_shape
            logits = self.logits.expand(batch + self.logits.shape[self._axis :])
            noise = (
                torch.empty_like(logits, memory_format=torch.contiguous_format)
                .exponential_()
                .log_()
            )
            index = (logits - noise).argmax(self._axis, keepdim=True)  # (*batch, 1, *pixels)
            if self.coupling is not None:
                index = index.unsqueeze(self._axis)  # (*batch, 1, 1, *pixels)
            axis = -1 - len(self._event_shape)

            def pick(tensor: Tensor) -> Tensor:
                wide = tensor.expand(batch + tensor.shape[axis:])
                return wide.gather(
                    axis, index.expand(*batch, 1, *tensor.shape[axis + 1 :])
                ).squeeze(axis)

            loc, scale = pick(self.loc), pick(self.scale)  # (*batch, *event)
            if self.coupling is None:
                return _draw(loc, scale, self.num_levels)
            return self._channels(
                loc, scale, pick(self.coupling), lambda m, s: _draw(m, s, self.num_levels)
            )

    @property
    def mean(self) -> Tensor:
        """Approximate: within half a level without coupling; with it, each channel at the means of
        those before.
        """
        weights = self.logits.softmax(self._axis)  # (*batch, M, *pixels)
        if self.coupling is None:
            mean = (weights * clipped_mean(self.loc, self.scale)).sum(self._axis)
        else:
            means = self._channels(self.loc, self.scale, self.coupling, clipped_mean)
            mean = (weights.unsqueeze(self._axis) * means).sum(self._axis - 1)
        return mean.expand(self._batch_shape + self._event_shape)

    def _channels(self, loc: Tensor, scale: Tensor, coupling: Tensor, value: Any) -> Tensor:
        """Red, green and blue in turn, each ``value(mean, scale)`` given those before it."""
        alpha, beta, gamma = coupling.unbind(self._axis)
        (red, green, blue), scales = loc.unbind(self._axis), scale.unbind(self._axis)
        red = value(red, scales[0])
        green = value(green + alpha * (red - 0.5), scales[1])
        blue = value(blue + beta * (red - 0.5) + gamma * (green - 0.5), scales[2])
        return torch.stack((red, green, blue), self._axis)
