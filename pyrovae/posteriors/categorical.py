"""Encoders to discrete latents, exact and relaxed."""

from torch import Tensor

from pyrovae.distributions.onehot import (
    OneHotProduct,
    RelaxedOneHotProduct,
    check_temperature,
    num_blocks,
)
from pyrovae.posteriors.base import Posterior

__all__ = ["Categorical", "RelaxedCategorical"]


class Categorical(Posterior):
    r"""Independent categorical latents, z their concatenated one-hot codes: ``latent_dim`` D = L C.

    .. math:: q(z \mid x) = \prod_{l=1}^L \prod_{c=1}^C \pi_{lc}(x)^{z_{lc}}

    Draws have no gradient: use ``TraceEnum_ELBO`` with ``pyro.infer.config_enumerate(vae.guide)``, which sums
    over all :math:`C^L` values, or an estimator with score-function gradients, such as ``estimators.ELBO``.
    Pairs with ``priors.Categorical``; the KL is in closed form.

    Args:
        num_categories: C; None for one latent of ``latent_dim`` values.

    Raises:
        ValueError: If C < 2, or ``latent_dim`` is not a multiple of it.

    References:
        Semi-supervised Learning with Deep Generative Models (Kingma et al., 2014), equation 7.
    """

    space = "one-hot"

    def __init__(self, num_categories: int | None = None):
        super().__init__()
        self.num_categories = num_categories

    def build(self) -> None:
        self.block_shape = num_blocks(self.latent_dim, self.num_categories)

    def output_size(self) -> int:
        return self.latent_dim

    def distribution(self, outputs: Tensor) -> OneHotProduct:
        return OneHotProduct(outputs.unflatten(-1, self.block_shape), validate_args=False)


class RelaxedCategorical(Posterior):
    r"""Independent Concrete (Gumbel-softmax) latents, reparameterised: z on L simplices of C corners.

    Pairs with ``priors.RelaxedCategorical``, whose program it bounds: the relaxed one, not the discrete one.

    Args:
        num_categories: C; None for one latent of ``latent_dim`` values.
        temperature: Above zero. Far below 1/2, gradients grow and float32 coordinates underflow.

    Raises:
        ValueError: If C < 2, ``latent_dim`` is not a multiple of it, or the temperature is not positive.

    References:
        The Concrete Distribution (Maddison et al., 2017), equation 10; Categorical Reparameterization with
        Gumbel-Softmax (Jang et al., 2017), equation 2.
    """

    space = "simplex"

    def __init__(self, num_categories: int | None = None, temperature: float = 2 / 3):
        super().__init__()
        self.num_categories, self.temperature = num_categories, check_temperature(temperature)

    def build(self) -> None:
        self.block_shape = num_blocks(self.latent_dim, self.num_categories)

    def output_size(self) -> int:
        return self.latent_dim

    def distribution(self, outputs: Tensor) -> RelaxedOneHotProduct:
        return RelaxedOneHotProduct(
            outputs.unflatten(-1, self.block_shape), self.temperature, validate_args=False
        )
