"""Several categorical variables as one vector of concatenated one-hot codes, exact and relaxed."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import Categorical, constraints
from torch import Tensor
from torch.distributions import register_kl
from torch.distributions.utils import clamp_probs
from torch.nn.functional import one_hot

from pyrovae.distributions.base import VectorDistribution

__all__ = ["OneHotProduct", "RelaxedOneHotProduct"]


def num_blocks(latent_dim: int, num_categories: int | None) -> tuple[int, int]:
    """The shape (L, C) of ``latent_dim`` coordinates in L blocks of C; None for one block.

    Raises:
        ValueError: If C < 2 or ``latent_dim`` is not a multiple of C.
    """
    size = latent_dim if num_categories is None else num_categories
    if size < 2 or latent_dim % size:
        raise ValueError(
            "latent_dim must be L * num_categories with num_categories >= 2, one coordinate for "
            f"each value of each of L latents, found latent_dim={latent_dim} and "
            f"num_categories={size}."
        )
    return latent_dim // size, size


def check_temperature(temperature: float) -> float:
    """The temperature; a ValueError unless it is finite and positive."""
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"A temperature must be finite and positive, found {temperature}.")
    return temperature


class _Blocks(constraints.Constraint):
    """Each block of a vector satisfies another constraint."""

    event_dim = 1

    def __init__(self, base: constraints.Constraint, size: int):
        self.base, self.size = base, size
        self.is_discrete = base.is_discrete
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return self.base.check(value.unflatten(-1, (-1, self.size))).all(-1)


class _Product(VectorDistribution):
    """Base of both: ``logits`` have the shape ``(*batch, L, C)``, events ``(L * C,)``."""

    arg_constraints: ClassVar[dict[str, Any]] = {
        "logits": constraints.independent(constraints.real, 2)
    }
    _constraint = constraints.one_hot

    def __init__(self, logits: Tensor, *, validate_args: bool | None = None):
        self.logits = logits.log_softmax(-1)
        event_shape = torch.Size((logits.shape[-2] * logits.shape[-1],))
        super().__init__(logits.shape[:-2], event_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = super().expand(batch_shape)
        new.logits = self.logits.expand(new.batch_shape + self.logits.shape[-2:])
        return new

    @constraints.dependent_property(event_dim=1)
    def support(self):
        return _Blocks(self._constraint, self.logits.shape[-1])

    def _blocks(self, value: Tensor) -> Tensor:
        """``(*batch, L, C)`` from ``(*batch, L * C)``."""
        return value.unflatten(-1, self.logits.shape[-2:])


class OneHotProduct(_Product):
    r"""L independent categorical variables of C values each, as L concatenated one-hot codes.

    .. math:: \log p(z) = \sum_{l=1}^L \sum_{c=1}^C z_{lc} \log \pi_{lc}

    ``enumerate_support`` lists all :math:`C^L` joint values, so exact sums need few variables.

    Args:
        logits: ``(*batch, L, C)``, normalised here.

    Example:
        >>> coins = OneHotProduct(torch.zeros(3, 2))
        >>> coins.enumerate_support().shape, coins.log_prob(coins.sample()).exp()
        (torch.Size([8, 6]), tensor(0.1250))
    """

    has_enumerate_support = True

    def log_prob(self, value: Tensor) -> Tensor:
        self.check_sample(value)
        return (self._blocks(value) * self.logits).sum((-2, -1))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with torch.no_grad():
            categories = Categorical(logits=self.logits, validate_args=False)
            codes = categories.sample(torch.Size(sample_shape))
            return self._one_hot(codes)

    def _one_hot(self, codes: Tensor) -> Tensor:
        return one_hot(codes, self.logits.shape[-1]).to(self.logits.dtype).flatten(-2)

    @property
    def num_values(self) -> int:
        """C ** L."""
        num, size = self.logits.shape[-2:]
        return size**num

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """``(C ** L, *batch, L * C)``; with ``expand=False`` the batch dimensions have size 1.

        Raises:
            ValueError: If there are more than 2^20 joint values.
        """
        num, size = self.logits.shape[-2:]
        if self.num_values > 2**20:
            raise ValueError(
                f"{num} variables of {size} categories have {self.num_values} joint values, too "
                "many to enumerate. Use fewer, or estimate by sampling: estimators.ELBO."
            )
        codes = torch.tensor(
            list(itertools.product(range(size), repeat=num)), device=self.logits.device
        )
        values = self._one_hot(codes).reshape(-1, *(1,) * len(self.batch_shape), num * size)
        return values.expand(-1, *self.batch_shape, -1) if expand else values

    def entropy(self) -> Tensor:
        return -(self.logits.exp() * self.logits).sum((-2, -1))

    @property
    def mean(self) -> Tensor:
        return self.logits.exp().flatten(-2)

    @property
    def variance(self) -> Tensor:
        return self.mean * (1 - self.mean)


class RelaxedOneHotProduct(_Product):
    r"""L independent Concrete (Gumbel-softmax) variables, inside of simplices, in one vector.

    .. math:: z_l = \operatorname{softmax}\left((\log\pi_l + g_l) / \tau\right),
              \qquad g_{lc} \sim \mathrm{Gumbel}

    .. math:: p(z_l) = (C-1)!\, \tau^{C-1}\,
              \prod_c \pi_{lc} z_{lc}^{-\tau-1} \Big/ \Big(\sum_c \pi_{lc} z_{lc}^{-\tau}\Big)^C

    The density is with respect to Lebesgue measure on the first C - 1 coordinates of each block. A
    coordinate below the smallest normal number of its dtype counts as that number, so that
    densities stay finite.

    Args:
        logits: ``(*batch, L, C)``, normalised here.
        temperature: tau > 0.

    References:
        The Concrete Distribution (Maddison et al., 2017), definition 1,
        `arXiv:1611.00712 <https://arxiv.org/abs/1611.00712>`_; Categorical Reparameterization with
        Gumbel-Softmax (Jang et al., 2017), appendix B,
        `arXiv:1611.01144 <https://arxiv.org/abs/1611.01144>`_.

    Example:
        >>> pair = RelaxedOneHotProduct(torch.zeros(1, 2), temperature=1.0)
        >>> pair.log_prob(torch.tensor([0.3, 0.7])).exp()  # uniform
        tensor(1.)
    """

    has_rsample = True
    _constraint = constraints.simplex

    def __init__(self, logits: Tensor, temperature: float, *, validate_args: bool | None = None):
        self.temperature = temperature
        super().__init__(logits, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        self.check_sample(value)
        size, tau = self.logits.shape[-1], self.temperature
        log_z = self._blocks(value).clamp_min(torch.finfo(value.dtype).tiny).log()
        log_prob = ((self.logits - tau * log_z).log_softmax(-1) - log_z).sum(-1)
        return (log_prob + math.lgamma(size) + (size - 1) * math.log(tau)).sum(-1)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = torch.Size(sample_shape) + self.logits.shape
        uniform = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        gumbel = -(-clamp_probs(uniform).log()).log()
        value = ((self.logits + gumbel) / self.temperature).softmax(-1)
        return value.clamp_min(torch.finfo(value.dtype).tiny).flatten(-2)


@register_kl(OneHotProduct, OneHotProduct)
def _kl_one_hot_product(p, q):
    return (p.logits.exp() * (p.logits - q.logits)).sum((-2, -1))
