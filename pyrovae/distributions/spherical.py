r"""Distributions on the unit sphere :math:`S^{D-1}` of :math:`\mathbb R^D`."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import Gamma, constraints
from torch import Tensor
from torch.distributions import register_kl
from torch.nn.functional import normalize

from pyrovae.distributions.base import VectorDistribution, double

__all__ = ["HypersphericalUniform", "PowerSpherical"]

_LARGE = 1e4
"""From here on the asymptotic series of the gamma functions are exact to float64's rounding."""


def log_area(dim: int) -> float:
    r"""Log surface area of :math:`S^{D-1}`.

    It is :math:`\log 2 + \frac D2 \log\pi - \log\Gamma(\frac D2)`.
    """
    return math.log(2) + 0.5 * dim * math.log(math.pi) - math.lgamma(0.5 * dim)


class HypersphericalUniform(VectorDistribution):
    """Uniform distribution on the unit sphere; densities are per unit of surface area.

    Args:
        like: ``(*batch, D)``; a tensor of the distribution's batch shape, dimension, dtype and
            device.

    Raises:
        ValueError: If D < 2.

    Example:
        >>> HypersphericalUniform(torch.zeros(2)).log_prob(torch.tensor([1.0, 0.0]))  # -log(2 pi)
        tensor(-1.8379)
    """

    support = constraints.sphere  # type: ignore[assignment]
    has_rsample = True

    def __init__(self, like: Tensor, *, validate_args: bool | None = None):
        _check_dim(like.shape[-1])
        self._like = like.new_zeros(like.shape[-1:])
        super().__init__(like.shape[:-1], like.shape[-1:], validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        self.check_sample(value)
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return value.new_full(shape, -log_area(self.event_shape[0]))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        return normalize(torch.randn_like(self._like.expand(shape)), dim=-1)

    def entropy(self) -> Tensor:
        return self._like.new_full(self.batch_shape, log_area(self.event_shape[0]))

    @property
    def mean(self) -> Tensor:
        return self._like.new_zeros(self.batch_shape + self.event_shape)


class PowerSpherical(VectorDistribution):
    r"""Unimodal distribution on the unit sphere, with exact reparameterised draws.

    .. math:: p(z) = \frac{\Gamma(\alpha + \beta)}{\Gamma(\alpha)\, (4 \pi)^\beta}
              \left(\frac{1 + \mu^\top z}2\right)^\kappa,
              \qquad \beta = \tfrac{D-1}2, \quad \alpha = \beta + \kappa

    A draw has :math:`\mu^\top z = 2b - 1` with :math:`b \sim \mathrm{Beta}(\alpha, \beta)`.

    Args:
        direction: Mean direction mu, unit vectors ``(*batch, D)``.
        concentration: kappa, positive, ``(*batch)``; near zero is uniform.

    Raises:
        ValueError: If D < 2.

    References:
        The Power Spherical distribution (De Cao and Aziz, 2020), equation 8 and algorithm 1,
        `arXiv:2006.04437 <https://arxiv.org/abs/2006.04437>`_. Here the reflection that turns the
        pole to mu starts from the farther of the two poles, so that its gradient is bounded.

    Example:
        >>> up = torch.tensor([0.0, 0.0, 1.0])
        >>> PowerSpherical(up, torch.tensor(1.0)).log_prob(up)  # -log(2 pi)
        tensor(-1.8379)
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "direction": constraints.sphere,
        "concentration": constraints.positive,
    }
    support = constraints.sphere  # type: ignore[assignment]
    has_rsample = True

    def __init__(
        self, direction: Tensor, concentration: Tensor, *, validate_args: bool | None = None
    ):
        _check_dim(direction.shape[-1])
        batch_shape = torch.broadcast_shapes(direction.shape[:-1], concentration.shape)
        self.direction, self.concentration = direction, concentration
        super().__init__(batch_shape, direction.shape[-1:], validate_args=validate_args)

    @property
    def _half(self) -> float:
        """beta."""
        return 0.5 * (self.event_shape[0] - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        self.check_sample(value)
        near = (self.direction * value).sum(-1) > 0
        # (1 + cos) / 2 is 1 - |z - mu|^2 / 4, and |z + mu|^2 / 4. A large kappa multiplies its
        # logarithm, so that the first form must serve near mu, and the second near -mu.
        pole = torch.where(near, 1.0, -1.0).to(value).unsqueeze(-1) * self.direction
        share = 0.25 * (value - pole).square().sum(-1)
        far = torch.where(near, 1.0, share).clamp_min(torch.finfo(value.dtype).tiny)
        log = torch.where(near, torch.log1p(-torch.where(near, share, 0.0)), far.log())
        log_prob = self.concentration * log + self._log_peak()
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def _log_peak(self) -> Tensor:
        """log p(mu)."""
        log_ratio = _log_gamma_ratio(self._half + double(self.concentration), self._half)
        return (log_ratio - self._half * math.log(4 * math.pi)).to(self.concentration.dtype)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        alpha = (self._half + self.concentration).expand(shape[:-1])
        # b and 1 - b are shares of two gamma variables. A beta variable would give 1 - b few
        # correct digits, and wrong gradients, where kappa is large.
        one, beta = torch.ones_like(alpha), torch.full_like(alpha, self._half)
        first = Gamma(alpha, one, validate_args=False).rsample()
        second = Gamma(beta, one, validate_args=False).sample()
        tiny = torch.finfo(alpha.dtype).tiny  # the square root has no gradient at zero
        b, rest = ((part / (first + second)).clamp_min(tiny) for part in (first, second))
        cosine, sine = (b - rest).unsqueeze(-1), 2 * (b * rest).sqrt().unsqueeze(-1)
        direction = self.direction.expand(shape)
        noise = normalize(torch.randn_like(direction[..., 1:]), dim=-1)
        upright = torch.cat([cosine, sine * noise], -1)  # about the first axis
        sign = torch.where(direction[..., :1] < 0, 1.0, -1.0).to(direction)
        pole = torch.cat([sign, torch.zeros_like(direction[..., 1:])], -1)
        normal = normalize(pole - direction, dim=-1)
        # Reflecting sends the chosen pole to mu; with the pole -e1 the vector is turned over first.
        turned = sign * upright
        value = turned - 2 * (turned * normal).sum(-1, keepdim=True) * normal
        return normalize(value, dim=-1)

    def entropy(self) -> Tensor:
        kappa = double(self.concentration)
        mean_log = -_digamma_difference(self._half + kappa, self._half)
        entropy = -self._log_peak() - (kappa * mean_log).to(self.concentration.dtype)
        return entropy.expand(self.batch_shape)

    @property
    def mean(self) -> Tensor:
        kappa = self.concentration.unsqueeze(-1)
        mean = self.direction * (kappa / (kappa + 2 * self._half))
        return mean.expand(self.batch_shape + self.event_shape)


def _log_gamma_ratio(a: Tensor, b: float) -> Tensor:
    """log Gamma(a + b) - log Gamma(a) in float64; for large a by Stirling's series."""
    large, small = a.clamp_min(_LARGE), a.clamp_max(_LARGE)
    series = b * torch.log(large + b) + (large - 0.5) * torch.log1p(b / large) - b
    series = series + (1 / (large + b) - 1 / large) / 12
    return torch.where(a > _LARGE, series, torch.lgamma(small + b) - torch.lgamma(small))


def _digamma_difference(a: Tensor, b: float) -> Tensor:
    """digamma(a + b) - digamma(a), the derivative of :func:`_log_gamma_ratio` in a."""
    large, small = a.clamp_min(_LARGE), a.clamp_max(_LARGE)
    series = torch.log1p(b / large) + 0.5 * (b / large) / (large + b)
    series = series + (large.square().reciprocal() - (large + b).square().reciprocal()) / 12
    return torch.where(a > _LARGE, series, torch.digamma(small + b) - torch.digamma(small))


@register_kl(PowerSpherical, HypersphericalUniform)
def _kl_power_spherical_uniform(p: PowerSpherical, q: HypersphericalUniform) -> Tensor:
    return log_area(p.event_shape[0]) - p.entropy()


def _check_dim(dim: int) -> None:
    if dim < 2:
        raise ValueError(
            f"A sphere needs an ambient dimension (latent_dim) of at least 2, found {dim}."
        )
