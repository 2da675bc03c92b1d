"""Fractions strictly between 0 and 1."""

import torch
from torch import Tensor

from pyrovae.distributions import beta
from pyrovae.likelihoods.base import Likelihood
from pyrovae.likelihoods.positive import Positive

__all__ = ["Beta"]


class Beta(Likelihood):
    r"""Independent beta elements, for fractions strictly between 0 and 1.

    .. math:: p(x \mid z) = \prod_i \mathrm{Beta}(x_i;\ m_i c_i,\ (1 - m_i) c_i),
              \qquad m = \sigma(l(z))

    The decoder gives the logits l of the means m. The variance is :math:`m (1 - m) / (c + 1)` for
    concentration c. At 0 and 1 the density is zero or infinite, so these values are refused.

    Args:
        concentration: Where the concentration comes from: a positive number (fixed), ``"learned"``,
            ``"per-element"`` or ``"decoder"``.
        initial_concentration: Where a concentration that is not fixed starts.

    Raises:
        ValueError: If the concentration is neither positive and finite nor one of the names, or if
            x holds values outside the open interval.

    References:
        Beta regression for modelling rates and proportions (Ferrari and Cribari-Neto, 2004), for
        the parameters.

    Example:
        >>> import pyrovae as pv
        >>> vae = pv.VAE((4,), latent_dim=2, likelihood=pv.likelihoods.Beta())
        >>> vae.sample(3).shape
        torch.Size([3, 4])
    """

    support = beta.Beta.support
    domain = "is a density on the open interval (0, 1)"
    advice = (
        "Use likelihoods.ContinuousBernoulli, which takes 0 and 1, "
        "or likelihoods.DiscretizedLogistic for grey levels"
    )

    def __init__(self, concentration: float | str = "decoder", initial_concentration: float = 2.0):
        super().__init__()
        self.concentration_of = Positive(
            "Beta concentration", concentration, initial_concentration, floor=1e-2
        )
        self.num_outputs = 1 + self.concentration_of.num_outputs

    def distribution(self, outputs: Tensor):
        logits, *raw = outputs.unbind(self.output_dim)
        concentration = self.concentration_of(*raw)
        tiny = torch.finfo(logits.dtype).eps
        return beta.Beta(
            logits.sigmoid() * concentration + tiny, (-logits).sigmoid() * concentration + tiny
        )

    def initial_bias(self, mean: Tensor) -> Tensor:
        return self._first_outputs(torch.logit(mean.clamp(1e-3, 1 - 1e-3)))
