"""Posteriors of discrete latents, exact and relaxed."""

from torch import Tensor

from pyrovae.distributions.onehot import (
    OneHotProduct,
    RelaxedOneHotProduct,
    check_temperature,
    num_blocks,
)
from pyrovae.posteriors.base import Posterior

__all__ = ["Categorical", "RelaxedCategorical"]


class _BlockPosterior(Posterior):
    """Base of both: one encoder output for each of L times C coordinates."""

    num_categories: int | None

    def build(self) -> None:
        self.block_shape = num_blocks(self.latent_dim, self.num_categories)

    def output_size(self) -> int:
        return self.latent_dim


class Categorical(_BlockPosterior):
    r"""Independent categorical latents; z is their one-hot codes in one vector of size D = L C.

    .. math:: q(z \mid x) = \prod_{l=1}^L \prod_{c=1}^C \pi_{lc}(x)^{z_{lc}}

    Draws have no gradient. Use ``estimators.EnumELBO``, which sums over all :math:`C^L` values, or
    an estimator with score-function gradients, such as ``estimators.ELBO``. It goes with
    ``priors.Categorical``; the KL has a closed form.

    Args:
        num_categories: C; None for one latent of ``latent_dim`` values.

    Raises:
        ValueError: If C < 2, or ``latent_dim`` is not a multiple of it.

    References:
        Semi-supervised Learning with Deep Generative Models (Kingma et al., 2014), equation 7,
        `arXiv:1406.5298 <https://arxiv.org/abs/1406.5298>`_.

    Example:
        >>> import torch
        >>> from pyrovae import nets
        >>> q = Categorical(num_categories=3)
        >>> q = q.bind(latent_dim=6, data_shape=(4,), encoder=nets.MLP(8))
        >>> q(torch.zeros(5, 4)).sample().sum(-1)  # two latents of three values
        tensor([2., 2., 2., 2., 2.])
    """

    space = "one-hot"

    def __init__(self, num_categories: int | None = None):
        super().__init__()
        self.num_categories = num_categories

    def distribution(self, outputs: Tensor) -> OneHotProduct:
        return OneHotProduct(outputs.unflatten(-1, self.block_shape), validate_args=False)


class RelaxedCategorical(_BlockPosterior):
    """Independent Concrete (Gumbel-softmax) latents on L simplices with C corners, reparameterised.

    It goes with ``priors.RelaxedCategorical``. Bounds are those of the relaxed program, not of the
    discrete one.

    Args:
        num_categories: C; None for one latent of ``latent_dim`` values.
        temperature: Above zero. Far below 1/2 gradients grow, and coordinates underflow in float32.

    Raises:
        ValueError: If C < 2, ``latent_dim`` is not a multiple of it, or the temperature is not
            positive.

    References:
        The Concrete Distribution (Maddison et al., 2017), equation 10,
        `arXiv:1611.00712 <https://arxiv.org/abs/1611.00712>`_; Categorical Reparameterization with
        Gumbel-Softmax (Jang et al., 2017), equation 2,
        `arXiv:1611.01144 <https://arxiv.org/abs/1611.01144>`_.

    Example:
        >>> import torch
        >>> from pyrovae import nets
        >>> q = RelaxedCategorical(num_categories=3)
        >>> q = q.bind(latent_dim=6, data_shape=(4,), encoder=nets.MLP(8))
        >>> q(torch.zeros(5, 4)).rsample().shape
        torch.Size([5, 6])
    """

    space = "simplex"

    def __init__(self, num_categories: int | None = None, temperature: float = 2 / 3):
        super().__init__()
        self.num_categories, self.temperature = num_categories, check_temperature(temperature)

    def distribution(self, outputs: Tensor) -> RelaxedOneHotProduct:
        return RelaxedOneHotProduct(
            outputs.unflatten(-1, self.block_shape), self.temperature, validate_args=False
        )
