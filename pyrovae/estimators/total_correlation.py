"""The total-correlation decomposition of the KL term."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.estimators.base import Estimator, Terms
from pyrovae.estimators.elbo import ELBO, log_ratio
from pyrovae.particles import Particles

__all__ = ["BetaTC", "Decomposition"]


class Decomposition(NamedTuple):
    """Three parts of log q(z | x) - log p(z), each ``(K, B)``, in nats."""

    mutual_information: Tensor
    """log q(z | x) - log q(z): between data and latents."""
    total_correlation: Tensor
    """log q(z) - sum of log q(z_d): among latents."""
    dimension: Tensor
    """Sum of log q(z_d), less log p(z): of each latent from its prior."""


class BetaTC(Estimator):
    r"""Evidence lower bound with separate weights of three terms of the KL in its gradient, in nats
    per datum.

    .. math:: \mathbb E[\log p(x \mid z)] - \alpha\, I_q(z; x)
              - \beta\, \mathrm{KL}\Big(q(z) \,\Big\|\, \prod_d q(z_d)\Big)
              - \gamma \sum_d \mathrm{KL}(q(z_d) \,\|\, p(z_d))

    The aggregate posterior q(z) is estimated from the batch by minibatch weighting,

    .. math:: \log q(z_i) \approx \log \frac{1}{N M} \sum_{j=1}^M q(z_i \mid x_j),

    which is biased; N, the size of the data set, shifts the parts by constants and leaves their
    gradients alone. Where the prior depends on the datum, as p(z | y) does, the three still add up,
    but the third is no KL. Reported is the ELBO. With all weights one its gradient is the ELBO's.
    Under :class:`~pyrovae.handlers.KLScale` all three are multiplied.

    References:
        Isolating Sources of Disentanglement in Variational Autoencoders (Chen et al., 2018,
        `arXiv:1802.04942 <https://arxiv.org/abs/1802.04942>`_), equations 2, 4 and 5.

    Args:
        num_particles: Draws K for each datum.
        mutual_information, total_correlation, dimension: The weights alpha, beta and gamma.
        data_size: N; default the batch size times the data plate's subsampling scale.
        max_plate_nesting: 1; the latents have no plate but that of the data.

    Raises:
        ValueError: If a weight is negative; on use, if there is not exactly one latent site, of
            shape ``(D,)`` and independent across elements under model and guide.

    Example:
        >>> from pyrovae.testing import LinearGaussian
        >>> oracle = LinearGaussian()
        >>> x = oracle.sample(2)
        >>> BetaTC(total_correlation=6.0).bound(oracle.model, oracle.guide, x).shape
        torch.Size([2])
    """

    needs_rsample = True
    looks_at_batch = True

    def __init__(
        self,
        num_particles: int = 1,
        *,
        mutual_information: float = 1.0,
        total_correlation: float = 6.0,
        dimension: float = 1.0,
        data_size: int | None = None,
        max_plate_nesting: int = 1,
    ):
        super().__init__(num_particles, max_plate_nesting=max_plate_nesting)
        self.weights = (float(mutual_information), float(total_correlation), float(dimension))
        if not all(weight >= 0 for weight in self.weights):
            raise ValueError(f"BetaTC needs weights >= 0, found {self.weights}.")
        self.data_size = data_size

    def target(self) -> Estimator:
        if self.weights == (1.0, 1.0, 1.0):
            return ELBO(self.num_particles, max_plate_nesting=int(self.max_plate_nesting))
        return self

    def decompose(self, particles: Particles) -> Decomposition:
        """The parts of log q(z | x) - log p(z) that the weights apply to."""
        site = next(iter(particles.latents.values()))
        if len(particles.latents) != 1 or site.value.dim() != 3:
            shapes = {name: tuple(s.value.shape) for name, s in particles.latents.items()}
            raise ValueError(
                f"BetaTC takes one latent site of shape (K, B, D), found {shapes}. Use "
                "estimators.ELBO."
            )
        across = site.across_data()  # (B, K, B, D), data i by j
        size = self.data_size or round(particles.num_data * particles.scale)
        shift = math.log(size * particles.num_data)
        joint = (torch.logsumexp(across.sum(-1), 2) - shift).T  # (K, B)
        alone = (torch.logsumexp(across, 2) - shift).sum(-1).T
        return Decomposition(site.log_q - joint, joint - alone, alone - site.log_p)

    def terms(self, particles: Particles) -> Terms:
        bound = log_ratio(particles).mean(0)
        site = next(iter(particles.latents.values()))
        parts = self.decompose(particles)
        penalty = sum(
            (w * part for w, part in zip(self.weights, parts, strict=True)),
            torch.zeros_like(parts[0]),
        )
        return Terms(bound, (particles.log_likelihood - site.kl_weight * penalty).mean(0))
