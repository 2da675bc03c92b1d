"""Counts whose variance exceeds their mean."""

from torch import Tensor

from pyrovae.distributions import counts
from pyrovae.likelihoods.counts import OverdispersedCounts

__all__ = ["NegativeBinomial"]


class NegativeBinomial(OverdispersedCounts):
    r"""Independent negative binomial elements, for counts that vary more than their mean.

    .. math:: p(x \mid z) = \prod_i \frac{\Gamma(x_i + \theta_i)}{\Gamma(\theta_i)\, x_i!}
              \Big(\frac{\theta_i}{\theta_i + \mu_i}\Big)^{\theta_i}
              \Big(\frac{\mu_i}{\theta_i + \mu_i}\Big)^{x_i}, \qquad \theta = 1/\alpha

    The mean is :math:`\mu` and the variance :math:`\mu + \alpha\mu^2`. As the dispersion
    :math:`\alpha` tends to 0, the distribution tends to the Poisson distribution.

    Args:
        dispersion: Where alpha comes from: a positive number (fixed), ``"learned"``,
            ``"per-element"`` (one for each gene, for instance) or ``"decoder"``.
        initial_dispersion: Where a dispersion that is not fixed starts.
        exposure: None, or ``"total"`` to condition on the total count n of each datum (its library
            size). The means are then n times a softmax of the decoder outputs, and bounds and
            evidence are those of log p(x | n).
        typical_total: With ``exposure="total"``, the n of samples and means.
        link: Without exposure, how a decoder output becomes a mean: ``"softplus"`` or ``"exp"``.

    Raises:
        ValueError: If an argument has none of these values, or if x holds anything but counts.

    References:
        Deep generative modeling for single-cell transcriptomics (Lopez et al., 2018), methods;
        earlier version:
        `arXiv:1709.02082 <https://arxiv.org/abs/1709.02082>`_.

    Example:
        >>> import pyrovae as pv
        >>> vae = pv.VAE((4,), latent_dim=2, likelihood=pv.likelihoods.NegativeBinomial())
        >>> vae.sample(3).shape
        torch.Size([3, 4])
    """

    def counts(self, log_mean: Tensor, *rest: Tensor):
        return counts.NegativeBinomial(log_mean, 1 / self.dispersion_of(*rest))
