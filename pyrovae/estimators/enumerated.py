"""The evidence lower bound with discrete sites summed exactly."""

from typing import Any

import torch
from torch import Tensor

from pyrovae.estimators.base import Estimator, Terms
from pyrovae.estimators.elbo import log_ratio
from pyrovae.particles import Particles, draw, every_value
from pyrovae.particles.scoring import is_discrete
from pyrovae.programs import Program
from pyrovae.weights import shared

__all__ = ["EnumELBO"]


class EnumELBO(Estimator):
    r"""Evidence lower bound with every discrete site of the guide summed exactly, in nats per
    datum.

    .. math:: \sum_d q(d \mid x)\, \frac1K \sum_{k=1}^K
              \log \frac{p(x, d, z_{dk})}{q(d \mid x)\, q(z_{dk} \mid x, d)},
              \qquad z_{dk} \sim q(z \mid x, d)

    The sum goes over all joint values d of the discrete sites, and the gradient has no score term.
    Model and guide run once with each value as further particles, so the cost is that of K times as
    many particles as there are values. Other sites must be reparameterised. It takes the place of
    :class:`pyro.infer.TraceEnum_ELBO` where the guide has the discrete sites, and runs as a
    captured graph in training.

    References:
        Semi-supervised Learning with Deep Generative Models (Kingma et al., 2014), equation 7,
        `arXiv:1406.5298 <https://arxiv.org/abs/1406.5298>`_.

    Args:
        num_particles: Draws K of the other sites for each datum and each value of the discrete
            ones.
        max_plate_nesting: Batch dimensions that the programs use themselves.

    Raises:
        ValueError: On use, if the values of a discrete site cannot be listed, there are more than
            65,536 joint ones, or another site is not reparameterised.

    Example:
        >>> import pyrovae as pv
        >>> from pyrovae import posteriors, priors
        >>> vae = pv.VAE(
        ...     4, 6, prior=priors.Categorical(3), posterior=posteriors.Categorical(3)
        ... )
        >>> x = vae.sample(5)
        >>> bound = EnumELBO().bound(vae.model, vae.guide, x)  # without any noise
        >>> bool(bound.equal(EnumELBO().bound(vae.model, vae.guide, x)))
        True
    """

    def terms(self, particles: Particles) -> Terms:
        bound = self.average(particles, log_ratio(particles))
        return Terms(bound, bound)

    def average(self, particles: Particles, values: Tensor) -> Tensor:
        log_q = [s.log_q for s in particles.sites.values() if is_discrete(s.posterior)]
        shares = sum(log_q, torch.zeros_like(values)).exp() / self.num_particles
        return shared(shares, values).sum(0)

    @property
    def several(self) -> bool:
        return True

    def drawn(self, model: Program, guide: Program, args: tuple, kwargs: Any) -> Particles:
        nesting: dict[str, Any] = {"max_plate_nesting": int(self.max_plate_nesting)}
        values = every_value(guide, self.num_draws, args, kwargs, **nesting)
        num = len(next(iter(values.values()))) if values else self.num_draws
        return draw(model, guide, num, args, kwargs, values=values, **nesting)

    def check(self, particles: Particles) -> None:
        super().check(particles)
        for site in particles.sites.values():
            if not is_discrete(site.posterior) and not site.reparameterized:
                raise ValueError(
                    f"EnumELBO differentiates through '{site.name}', which is continuous and has "
                    "no rsample. Use estimators.ELBO."
                )
