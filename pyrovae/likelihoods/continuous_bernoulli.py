"""Grey values as reals in [0, 1]."""

from torch import Tensor

from pyrovae.distributions import continuous_bernoulli
from pyrovae.likelihoods.base import Likelihood, solve_increasing

__all__ = ["ContinuousBernoulli"]


class ContinuousBernoulli(Likelihood):
    r"""Independent continuous Bernoulli elements, x in [0, 1]; the decoder gives logits :math:`l`.

    .. math:: \log p(x \mid z) = \sum_i x_i l_i - \log\frac{e^{l_i} - 1}{l_i}

    The Bernoulli's kernel with the normaliser that makes it a density of grey values; accurate near l = 0 too.
    A density of reals: bits per dimension of grey images account for the scaling of pixels.

    Raises:
        ValueError: If x holds values outside [0, 1].

    References:
        The continuous Bernoulli: fixing a pervasive error in variational autoencoders (Loaiza-Ganem and
        Cunningham, 2019), equations 6 to 8.
    """

    support = continuous_bernoulli.ContinuousBernoulli.support
    domain = "is a density on [0, 1]"
    advice = (
        "Scale the data (8-bit pixels by 1/255), or use likelihoods.Gaussian for unbounded values"
    )

    def distribution(self, outputs: Tensor):
        return continuous_bernoulli.ContinuousBernoulli(outputs.squeeze(self.output_dim))

    def initial_bias(self, mean: Tensor) -> Tensor:
        logits = solve_increasing(
            continuous_bernoulli.continuous_bernoulli_mean, mean.clamp(0.02, 0.98)
        )
        return logits.unsqueeze(self.output_dim)
