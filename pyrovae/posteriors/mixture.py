"""A posterior with several modes."""

from torch import Tensor
from torch.nn.functional import softplus

from pyrovae.distributions.mixture import DiagonalNormalMixture
from pyrovae.posteriors.base import Posterior, check_not_negative

__all__ = ["Mixture"]


class Mixture(Posterior):
    r"""Mixture of C diagonal normals.

    .. math:: q(z \mid x) = \sum_c \pi_c(x)\, N(\mu_c(x), \operatorname{diag} \sigma_c^2(x))

    Draws are exact. They carry pathwise gradients in weights, means and scales (implicit
    reparameterisation), so that every estimator takes them. The encoder has C (2 D + 1) outputs.
    The KL has no closed form.

    Args:
        num_components: Number of components C.
        min_scale: Added to each sigma.

    Raises:
        ValueError: If ``num_components < 1`` or ``min_scale`` is negative.

    References:
        Implicit Reparameterization Gradients (Figurnov et al., 2018), for the gradient,
        `arXiv:1805.08498 <https://arxiv.org/abs/1805.08498>`_; Automatic Differentiation
        Variational Inference with Mixtures (Morningstar et al., 2021), for the family,
        `arXiv:2003.01687 <https://arxiv.org/abs/2003.01687>`_.

    Example:
        >>> import torch
        >>> from pyrovae import nets
        >>> q = Mixture(num_components=3).bind(latent_dim=2, data_shape=(6,), encoder=nets.MLP(8))
        >>> q(torch.zeros(5, 6)).rsample().shape
        torch.Size([5, 2])
    """

    def __init__(self, num_components: int = 3, min_scale: float = 1e-4):
        super().__init__()
        if num_components < 1:
            raise ValueError(f"Mixture needs num_components >= 1, found {num_components}.")
        self.num_components, self.min_scale = num_components, check_not_negative(min_scale)

    def output_size(self) -> int:
        return self.num_components * (2 * self.latent_dim + 1)

    def distribution(self, outputs: Tensor) -> DiagonalNormalMixture:
        sizes = [self.latent_dim, self.latent_dim, 1]
        locs, raw, logits = outputs.unflatten(-1, (self.num_components, -1)).split(sizes, -1)
        scales = softplus(raw) + self.min_scale  # (*batch, C, D)
        return DiagonalNormalMixture(locs, scales, logits.squeeze(-1), validate_args=False)
