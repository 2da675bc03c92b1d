"""Counts: Poisson, negative binomial, and its zero-inflated form, by the logarithm of the mean."""

import math

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from pyrovae.distributions.deviances import negative_binomial_deviance, poisson_deviance
from pyrovae.distributions.elementwise import Elementwise
from pyrovae.distributions.special import stirling_error

__all__ = ["NegativeBinomial", "Poisson", "ZeroInflatedNegativeBinomial"]


class Poisson(Elementwise):
    r"""Poisson elements by the logarithm of their mean.

    .. math:: \log p(x) = x \log\mu - \mu - \log x!

    It is computed as a deviance, which depends on x and the mean, and a term of x alone. The latter
    is evaluated once for each datum, and not for each particle.

    Args:
        log_mean: :math:`\log\mu`.
    """

    support = constraints.nonnegative_integer
    log_mean: Tensor

    def __init__(self, log_mean: Tensor):
        super().__init__(log_mean=log_mean)

    def density(self, value: Tensor) -> Tensor:
        positive = torch.where(value > 0, value, 1.0)
        peak = stirling_error(positive) + 0.5 * (positive.log() + math.log(2 * math.pi))
        return torch.where(value > 0, -peak, 0.0) - poisson_deviance(self.log_mean, value)

    def draw(self, log_mean: Tensor) -> Tensor:
        return _poisson(log_mean.exp())

    @property
    def mean(self) -> Tensor:
        return self.log_mean.exp().expand(self._batch_shape)


class NegativeBinomial(Elementwise):
    r"""Negative binomial elements by the logarithm of their mean and their inverse dispersion.

    .. math:: \log p(x) = x \log\sigma(u) + \theta \log\sigma(-u)
              + \log\frac{\Gamma(x + \theta)}{\Gamma(\theta)\, x!}, \qquad u = \log\mu - \log\theta

    The variance is :math:`\mu + \mu^2/\theta`, and the distribution tends to the Poisson as
    :math:`\theta \to \infty`. The log-gammas would cancel to many digits. They are computed as
    Stirling errors, at the shape of x and theta alone: with one theta for each element, once for
    each datum and not for each particle.

    Args:
        log_mean: :math:`\log\mu`.
        theta: Inverse dispersion, positive; the number of failures in the textbook form.
    """

    support = constraints.nonnegative_integer
    log_mean: Tensor
    theta: Tensor

    def __init__(self, log_mean: Tensor, theta: Tensor):
        super().__init__(log_mean=log_mean, theta=theta)

    def density(self, value: Tensor) -> Tensor:
        positive = torch.where(value > 0, value, 1.0)
        n = positive + self.theta
        errors = stirling_error(n) - stirling_error(self.theta) - stirling_error(positive)
        # Roots, since the quotient of theta and n itself may underflow.
        root = (self.theta.sqrt() / n.sqrt()).log()
        peak = errors + root - 0.5 * (positive.log() + math.log(2 * math.pi))
        peak = torch.where(value > 0, peak, 0.0)
        return peak - negative_binomial_deviance(self.log_mean, self.theta, value)

    def draw(self, log_mean: Tensor, theta: Tensor) -> Tensor:
        rate = torch.distributions.Gamma(
            theta, torch.ones_like(theta), validate_args=False
        ).sample()
        return _poisson(rate * (log_mean - theta.log()).exp())

    @property
    def mean(self) -> Tensor:
        return self.log_mean.exp().expand(self._batch_shape)

    @property
    def variance(self) -> Tensor:
        mean = self.log_mean.exp()
        return (mean + mean.square() / self.theta).expand(self._batch_shape)


class ZeroInflatedNegativeBinomial(Elementwise):
    r"""Zero-inflated negative binomial elements, which are zero with an extra probability.

    .. math:: p(x) = \pi\, 1[x = 0] + (1 - \pi)\, \mathrm{NB}(x; \mu, \theta)

    Args:
        log_mean, theta: Of the negative binomial.
        gate_logits: :math:`\log\pi/(1 - \pi)`.
    """

    support = constraints.nonnegative_integer
    log_mean: Tensor
    theta: Tensor
    gate_logits: Tensor

    def __init__(self, log_mean: Tensor, theta: Tensor, gate_logits: Tensor):
        super().__init__(log_mean=log_mean, theta=theta, gate_logits=gate_logits)

    def density(self, value: Tensor) -> Tensor:
        counts = NegativeBinomial(self.log_mean, self.theta).density(value)
        gate, zero = self.gate_logits, value == 0
        positive, rare = gate > 0, zero & (counts <= gate)
        # With g the gate: log(e^g + p) - log(1 + e^g), the larger term of each sum taken out before
        # subtracting.
        largest = torch.where(positive & zero, 0.0, torch.where(rare, gate, counts))
        largest = largest - torch.where(positive & ~zero, gate, 0.0)
        other = torch.where(zero, torch.where(rare, counts - gate, gate - counts), -torch.inf)
        return largest - logsigmoid(-other) + logsigmoid(torch.where(positive, gate, -gate))

    def draw(self, log_mean: Tensor, theta: Tensor, gate_logits: Tensor) -> Tensor:
        counts = NegativeBinomial(log_mean, theta).draw(log_mean, theta)
        return counts * torch.bernoulli(torch.sigmoid(-gate_logits))

    @property
    def mean(self) -> Tensor:
        return (self.log_mean.exp() * torch.sigmoid(-self.gate_logits)).expand(self._batch_shape)


def _poisson(rate: Tensor) -> Tensor:
    """Poisson draws of any mean, at most the largest number of the dtype.

    torch draws whole numbers of 64 bits, on a GPU of 32, which turn negative where they overflow.
    Noise of a larger mean is scaled from that of 2^31, where both are normal to 1e-5.
    """
    largest = torch.finfo(rate.dtype).max
    rate = rate.clamp(max=largest)
    held = rate.clamp(max=2.0**31)
    draw = torch.poisson(held)
    scaled = (rate + (draw - held) * (rate / held).sqrt()).round().clamp(max=largest)
    return torch.where(rate > held, scaled, draw)
