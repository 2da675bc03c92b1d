"""Positive values whose spread grows with their mean."""

from torch import Tensor
from torch.distributions import constraints

from pyrovae.distributions import positive
from pyrovae.likelihoods.base import Likelihood
from pyrovae.likelihoods.positive import Positive

__all__ = ["Gamma"]


class Gamma(Likelihood):
    r"""Independent gamma elements, for positive values such as durations and amounts.

    .. math:: p(x \mid z) = \prod_i \frac{(a_i / \mu_i)^{a_i}}{\Gamma(a_i)}
              x_i^{a_i - 1} e^{-a_i x_i / \mu_i}

    The decoder gives log of the means :math:`\mu`. The variance is :math:`\mu^2 / a` for the
    concentration a, so that the spread is proportional to the mean.

    Args:
        concentration: Where a comes from: a positive number (fixed), ``"learned"`` (one for all
            elements), ``"per-element"`` or ``"decoder"``.
        initial_concentration: Where a concentration that is not fixed starts.

    Raises:
        ValueError: If the concentration is neither positive and finite nor one of the names, or if
            x is not positive.

    References:
        Deep Exponential Families (Ranganath et al., 2015), section 2,
        `arXiv:1411.2581 <https://arxiv.org/abs/1411.2581>`_.

    Example:
        >>> import pyrovae as pv
        >>> vae = pv.VAE((4,), latent_dim=2, likelihood=pv.likelihoods.Gamma())
        >>> vae.sample(3).shape
        torch.Size([3, 4])
    """

    support = constraints.positive
    domain = "is a density of positive numbers"
    advice = "Use likelihoods.Gaussian for values of any sign, or likelihoods.Poisson for counts"

    def __init__(self, concentration: float | str = "learned", initial_concentration: float = 2.0):
        super().__init__()
        self.concentration_of = Positive(
            "Gamma concentration", concentration, initial_concentration, floor=1e-2
        )
        self.num_outputs = 1 + self.concentration_of.num_outputs

    def distribution(self, outputs: Tensor):
        log_mean, *raw = outputs.unbind(self.output_dim)
        return positive.Gamma(log_mean, self.concentration_of(*raw))

    def initial_bias(self, mean: Tensor) -> Tensor:
        return self._first_outputs(mean.clamp(min=1e-30).log())
