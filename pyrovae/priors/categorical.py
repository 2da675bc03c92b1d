"""Priors of discrete latents, exact and relaxed."""

import torch
from torch import Tensor, nn

from pyrovae.distributions.onehot import (
    OneHotProduct,
    RelaxedOneHotProduct,
    check_temperature,
    num_blocks,
)
from pyrovae.priors.base import Prior

__all__ = ["Categorical", "RelaxedCategorical"]


class Categorical(Prior):
    r"""Independent categorical latents, z their concatenated one-hot codes: ``latent_dim`` D = L C.

    .. math:: p(z) = \prod_{l=1}^L \prod_{c=1}^C \pi_{lc}^{z_{lc}}

    Pairs with ``posteriors.Categorical``; the KL is in closed form. For exact sums over z in place of draws,
    ``TraceEnum_ELBO`` takes ``vae.model`` with ``pyro.infer.config_enumerate(vae.guide)``. ``log_marginal`` sums by
    itself where the joint values are no more than its particles.

    Args:
        num_categories: C; None for one latent of ``latent_dim`` values.
        learned: Learn pi, which starts uniform, in place of keeping it so.

    Raises:
        ValueError: If C < 2, or ``latent_dim`` is not a multiple of it.

    References:
        Semi-supervised Learning with Deep Generative Models (Kingma et al., 2014), for the enumeration.
    """

    space = "one-hot"
    logits: Tensor

    def __init__(self, num_categories: int | None = None, learned: bool = False):
        super().__init__()
        self.num_categories, self.learned = num_categories, learned

    def build(self) -> None:
        self.block_shape = num_blocks(self.latent_dim, self.num_categories)
        _register_logits(self, self.block_shape, self.learned)

    def forward(self) -> OneHotProduct:
        return OneHotProduct(self.logits, validate_args=False)  # (L * C,)


class RelaxedCategorical(Prior):
    r"""Independent Concrete latents, z on L simplices of C corners: a continuous stand-in for :class:`Categorical`.

    It is a prior of its own, with its own marginal likelihood: bounds and evidence are those of the relaxed
    program, not of the discrete one that it approaches as the temperature falls. Pairs with
    ``posteriors.RelaxedCategorical``; no closed KL.

    Args:
        num_categories: C; None for one latent of ``latent_dim`` values.
        temperature: Above zero; 1/2 and below puts the mass near the corners.
        learned: Learn pi, which starts uniform.

    Raises:
        ValueError: If C < 2, ``latent_dim`` is not a multiple of it, or the temperature is not positive.

    References:
        The Concrete Distribution (Maddison et al., 2017), section 4.2 and equation 14 (appendix C.3).
    """

    space = "simplex"
    logits: Tensor

    def __init__(
        self, num_categories: int | None = None, temperature: float = 0.5, learned: bool = False
    ):
        super().__init__()
        self.num_categories, self.temperature = num_categories, check_temperature(temperature)
        self.learned = learned

    def build(self) -> None:
        self.block_shape = num_blocks(self.latent_dim, self.num_categories)
        _register_logits(self, self.block_shape, self.learned)

    def forward(self) -> RelaxedOneHotProduct:
        return RelaxedOneHotProduct(self.logits, self.temperature, validate_args=False)  # (L * C,)


def _register_logits(prior: Prior, shape: tuple[int, int], learned: bool) -> None:
    if learned:
        prior.logits = nn.Parameter(torch.zeros(shape))
    else:
        prior.register_buffer("logits", torch.zeros(shape), persistent=False)
