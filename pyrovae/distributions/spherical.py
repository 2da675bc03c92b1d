r"""Distributions on the unit sphere :math:`S^{D-1}` of :math:`\mathbb R^D`; D is the ambient dimension."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import Dirichlet, TorchDistribution, constraints
from torch import Tensor
from torch.distributions import register_kl

__all__ = ["HypersphericalUniform", "PowerSpherical"]


def log_area(dim: int) -> float:
    r"""Log surface area of :math:`S^{D-1}`: :math:`\log 2 + \frac D2 \log\pi - \log\Gamma(\frac D2)`."""
    return math.log(2) + 0.5 * dim * math.log(math.pi) - math.lgamma(0.5 * dim)


class HypersphericalUniform(TorchDistribution):
    """Uniform on the unit sphere; densities are per unit of surface area.

    Args:
        like: ``(*batch, D)``; a tensor of the batch shape, dimension, dtype and device wanted.

    Raises:
        ValueError: If D < 2.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.sphere  # type: ignore[assignment]
    has_rsample = True

    def __init__(self, like: Tensor, *, validate_args: bool | None = None):
        _check_dim(like.shape[-1])
        self._like = like.new_zeros(like.shape[-1:])
        super().__init__(like.shape[:-1], like.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        new: Any = self._get_checked_instance(HypersphericalUniform, _instance)
        new._like = self._like
        TorchDistribution.__init__(
            new, torch.Size(batch_shape), self.event_shape, validate_args=False
        )
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return value.new_full(shape, -log_area(self.event_shape[0]))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        noise = torch.randn(
            self._extended_shape(torch.Size(sample_shape)),
            dtype=self._like.dtype,
            device=self._like.device,
        )
        return torch.nn.functional.normalize(noise, dim=-1)

    def entropy(self) -> Tensor:
        return self._like.new_full(self.batch_shape, log_area(self.event_shape[0]))

    @property
    def mean(self) -> Tensor:
        return self._like.new_zeros(self.batch_shape + self.event_shape)


class PowerSpherical(TorchDistribution):
    r"""Unimodal on the unit sphere, with exact reparameterised draws.

    .. math:: p(z) \propto (1 + \mu^\top z)^\kappa, \qquad
              t = \mu^\top z = 2b - 1, \quad b \sim \mathrm{Beta}\left(\tfrac{D-1}2 + \kappa, \tfrac{D-1}2\right)

    Args:
        direction: Mean direction mu, unit vectors ``(*batch, D)``.
        concentration: kappa, positive, ``(*batch)``; near zero is uniform.

    Raises:
        ValueError: If D < 2.

    References:
        The Power Spherical distribution (De Cao and Aziz, 2020), equation 8 and algorithm 1. The reflection that
        turns the pole to mu is taken from the farther pole, so that its gradient is bounded everywhere.
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
        self.direction = direction.expand(batch_shape + direction.shape[-1:])
        self.concentration = concentration.expand(batch_shape)
        super().__init__(batch_shape, direction.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        new: Any = self._get_checked_instance(PowerSpherical, _instance)
        batch_shape = torch.Size(batch_shape)
        new.direction = self.direction.expand(batch_shape + self.event_shape)
        new.concentration = self.concentration.expand(batch_shape)
        TorchDistribution.__init__(new, batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def _beta(self) -> tuple[Tensor, float]:
        """Parameters (alpha, beta) of (1 + t) / 2."""
        half = 0.5 * (self.event_shape[0] - 1)
        return half + self.concentration, half

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        cosine = (self.direction * value).sum(-1)
        # 1 + cos as half the squared length of mu + z: no cancellation at the antipode, and never negative.
        plus = torch.where(cosine < 0, 0.5 * (self.direction + value).square().sum(-1), 1 + cosine)
        tiny = torch.finfo(value.dtype).tiny
        return self.concentration * plus.clamp_min(tiny).log() + self._log_normalizer()

    def _log_normalizer(self) -> Tensor:
        alpha, beta = self._beta
        gammas = torch.lgamma(alpha + beta) - torch.lgamma(alpha)
        return gammas - (alpha + beta) * math.log(2) - beta * math.log(math.pi)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = torch.Size(sample_shape)
        alpha, beta = self._beta
        # Both b and 1 - b, each to full relative precision.
        both = Dirichlet(
            torch.stack([alpha, torch.full_like(alpha, beta)], -1), validate_args=False
        ).rsample(shape)
        tiny = torch.finfo(both.dtype).tiny
        b, rest = both.clamp_min(tiny).unbind(-1)
        cosine, sine = b - rest, 2 * (b * rest).sqrt()
        direction = self.direction.expand(shape + self.direction.shape)
        noise = torch.nn.functional.normalize(torch.randn_like(direction[..., 1:]), dim=-1)
        upright = torch.cat(
            [cosine.unsqueeze(-1), sine.unsqueeze(-1) * noise], -1
        )  # about the first axis
        pole = torch.zeros_like(direction)
        sign = torch.where(direction[..., :1] < 0, 1.0, -1.0).to(direction)
        pole[..., :1] = sign
        normal = torch.nn.functional.normalize(pole - direction, dim=-1)
        # Reflecting sends the chosen pole to mu; with the pole -e1 the upright vector is turned over first.
        turned = sign * upright
        value = turned - 2 * (turned * normal).sum(-1, keepdim=True) * normal
        return torch.nn.functional.normalize(value, dim=-1)

    def entropy(self) -> Tensor:
        alpha, beta = self._beta
        mean_log = math.log(2) + torch.digamma(alpha) - torch.digamma(alpha + beta)
        return -self._log_normalizer() - self.concentration * mean_log

    @property
    def mean(self) -> Tensor:
        alpha, beta = self._beta
        return self.direction * ((alpha - beta) / (alpha + beta)).unsqueeze(-1)


@register_kl(PowerSpherical, HypersphericalUniform)
def _kl_power_spherical_uniform(p, q):
    return log_area(p.event_shape[0]) - p.entropy()


def _check_dim(dim: int) -> None:
    if dim < 2:
        raise ValueError(
            f"A sphere needs an ambient dimension (latent_dim) of at least 2, found {dim}."
        )
