"""Grey values as reals in [0, 1]."""

from torch import Tensor

from pyrovae.distributions import continuous_bernoulli
from pyrovae.likelihoods.base import Likelihood, solve_increasing

__all__ = ["ContinuousBernoulli"]


class ContinuousBernoulli(Likelihood):
    r"""Independent continuous Bernoulli elements, for real numbers in [0, 1].

    .. math:: \log p(x \mid z) = \sum_i x_i l_i - \log\frac{e^{l_i} - 1}{l_i}

    The decoder gives the logits l. The kernel is that of the Bernoulli distribution, and the
    normaliser makes it a density of grey values. It is accurate near l = 0 and for large l.

    Raises:
        ValueError: If x holds values outside [0, 1].

    References:
        The continuous Bernoulli: fixing a pervasive error in variational autoencoders
        (Loaiza-Ganem and Cunningham, 2019), equations 6 to 8,
        `arXiv:1907.06845 <https://arxiv.org/abs/1907.06845>`_.

    Example:
        >>> import pyrovae as pv
        >>> vae = pv.VAE((28, 28), latent_dim=2, likelihood=pv.likelihoods.ContinuousBernoulli())
        >>> vae.sample(3).shape
        torch.Size([3, 28, 28])
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
