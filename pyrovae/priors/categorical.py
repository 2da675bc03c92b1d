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


class _BlockPrior(Prior):
    """Base of both: logits ``(L, C)``, fixed at zero or learned from there."""

    logits: Tensor
    num_categories: int | None
    learned: bool

    def build(self) -> None:
        self.block_shape = num_blocks(self.latent_dim, self.num_categories)
        logits = torch.zeros(self.block_shape)
        if self.learned:
            self.logits = nn.Parameter(logits)
        else:
            self.register_buffer("logits", logits, persistent=False)


class Categorical(_BlockPrior):
    r"""Independent categorical latents; z is their one-hot codes in one vector of size D = L C.

    .. math:: p(z) = \prod_{l=1}^L \prod_{c=1}^C \pi_{lc}^{z_{lc}}

    It goes with ``posteriors.Categorical``; the KL has a closed form. To sum over z exactly in
    place of drawing it, train with ``estimators.EnumELBO``. ``log_marginal`` sums by itself
    where z has no more joint values than there would be particles.

    Args:
        num_categories: C; None for one latent of ``latent_dim`` values.
        learned: Whether to learn pi, starting from uniform; otherwise it stays uniform.

    Raises:
        ValueError: If C < 2, or ``latent_dim`` is not a multiple of it.

    References:
        Semi-supervised Learning with Deep Generative Models (Kingma et al., 2014), for the
        enumeration, `arXiv:1406.5298 <https://arxiv.org/abs/1406.5298>`_.

    Example:
        >>> prior = Categorical(num_categories=3).bind(latent_dim=6, data_shape=(28, 28))
        >>> prior().sample().reshape(2, 3).sum(-1)  # two latents of three values
        tensor([1., 1.])
    """

    space = "one-hot"

    def __init__(self, num_categories: int | None = None, learned: bool = False):
        super().__init__()
        self.num_categories, self.learned = num_categories, learned

    def forward(self) -> OneHotProduct:
        return OneHotProduct(self.logits, validate_args=False)  # (L * C,)


class RelaxedCategorical(_BlockPrior):
    r"""Independent Concrete latents: a continuous substitute for ``Categorical``.

    z lives on L simplices with C corners. This is a prior in its own right: bounds and evidence are
    those of the relaxed program, not of the discrete one, which it approaches as the temperature
    falls. It goes with ``posteriors.RelaxedCategorical``; the KL has no closed form.

    Args:
        num_categories: C; None for one latent of ``latent_dim`` values.
        temperature: Above zero; at 1/2 and below most of the mass is near the corners.
        learned: Whether to learn pi, starting from uniform.

    Raises:
        ValueError: If C < 2, ``latent_dim`` is not a multiple of it, or the temperature is not
            positive.

    References:
        The Concrete Distribution (Maddison et al., 2017), section 4.2 and equation 14 (appendix
        C.3), `arXiv:1611.00712 <https://arxiv.org/abs/1611.00712>`_.

    Example:
        >>> prior = RelaxedCategorical(num_categories=3).bind(latent_dim=6, data_shape=(28, 28))
        >>> prior().sample((5,)).shape
        torch.Size([5, 6])
    """

    space = "simplex"

    def __init__(
        self, num_categories: int | None = None, temperature: float = 0.5, learned: bool = False
    ):
        super().__init__()
        self.num_categories, self.temperature = num_categories, check_temperature(temperature)
        self.learned = learned

    def forward(self) -> RelaxedOneHotProduct:
        return RelaxedOneHotProduct(self.logits, self.temperature, validate_args=False)  # (L * C,)
