"""Reweighted wake-sleep."""

from dataclasses import dataclass, fields
from typing import Any, Literal

from torch import Tensor

from pyrovae.estimators.base import Terms
from pyrovae.estimators.iwae import Weighted
from pyrovae.particles import Particles, dream
from pyrovae.weights import log_mean_exp, shared

__all__ = ["RWS"]

UPDATES = ("wake", "sleep", "both")


class RWS(Weighted):
    r"""Reweighted wake-sleep: the model maximises the importance-weighted bound, the guide fits the
    posterior.

    .. math:: \nabla_\theta = \sum_k \tilde w_k \nabla_\theta \log p(x, z_k), \qquad
              \nabla_\phi = \sum_k \tilde w_k \nabla_\phi \log q(z_k \mid x) \;\text{(wake)}
              \quad\text{or}\quad
              \nabla_\phi \log q(z' \mid x'),\; (x', z') \sim p \;\text{(sleep)}

    The guide minimises KL(p || q) instead of KL(q || p), so it covers all modes of the posterior.
    The draws are not differentiated, so latent sites may be discrete. The reported value is the
    bound of :class:`IWAE`, in nats per datum.

    The sleep phase draws one pair (x', z') from the model for each datum of the batch. It runs the
    guide with x' in place of the argument that the model observes, which must be one of the
    positional arguments of the programs.

    References:
        Reweighted Wake-Sleep (Bornschein and Bengio, 2015,
        `arXiv:1406.2751 <https://arxiv.org/abs/1406.2751>`_), equations 6, 8 and 9;
        Revisiting Reweighted Wake-Sleep for Models with Stochastic Control Flow (Le et al., 2019,
        `arXiv:1805.10469 <https://arxiv.org/abs/1805.10469>`_).

    Args:
        num_particles: Draws K for each datum.
        update: The guide's: ``"wake"``, ``"sleep"``, or ``"both"``, their mean.
        max_plate_nesting: Batch dimensions that the programs use themselves.

    Raises:
        ValueError: If ``update`` is none of these; on use, if the programs are scaled, or if the
            sleep phase cannot tell which argument is observed.

    Example:
        >>> from pyrovae.testing import DiscreteMixture
        >>> oracle = DiscreteMixture()
        >>> x = oracle.sample(2)
        >>> RWS(num_particles=5, update="both").bound(oracle.model, oracle.guide, x).shape
        torch.Size([2])
    """

    draws = "detached"
    takes_auxiliary = False

    def __init__(
        self,
        num_particles: int = 10,
        *,
        update: Literal["wake", "sleep", "both"] = "wake",
        max_plate_nesting: int = 1,
    ):
        super().__init__(num_particles, max_plate_nesting=max_plate_nesting)
        if update not in UPDATES:
            raise ValueError(
                f"RWS needs an update of the guide among {', '.join(UPDATES)}, found {update!r}."
            )
        self.update = update

    def particles(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Particles:
        particles = super().particles(model, guide, *args, **kwargs)
        if self.update == "wake":
            return particles
        if particles.auxiliary:
            raise ValueError(
                f"{self!r} scores dreamt latent values, but the guide draws its auxiliary sites "
                f"{list(particles.auxiliary)} anew. Use update='wake', or a guide without them."
            )
        kept = {item.name: getattr(particles, item.name) for item in fields(particles)}
        return _Dreaming(**kept, sleep=dream(model, guide, args, kwargs))

    def terms(self, particles: Particles) -> Terms:
        log_w = particles.log_weights
        shares = log_w.detach().softmax(0)
        model = shared(shares, particles.log_p).sum()
        guide = (shares * particles.log_q).sum()
        if self.update != "wake":
            if not isinstance(particles, _Dreaming):
                raise TypeError(f"{self!r} needs the dreams that its own method `particles` makes.")
            sleep = particles.sleep.sum()
            guide = sleep if self.update == "sleep" else 0.5 * (guide + sleep)
        return Terms(log_mean_exp(log_w), model + guide)


@dataclass(frozen=True, kw_only=True)
class _Dreaming(Particles):
    """Particles, and the score of dreamt latents under the guide, ``(B,)``."""

    sleep: Tensor
