"""Counts with more zeros than a negative binomial has."""

import math

from torch import Tensor

from pyrovae.distributions import counts
from pyrovae.likelihoods.counts import OverdispersedCounts

__all__ = ["ZeroInflatedNegativeBinomial"]

_START = 0.05


class ZeroInflatedNegativeBinomial(OverdispersedCounts):
    r"""Independent zero-inflated negative binomial elements, for counts with surplus zeros.

    .. math:: p(x \mid z) = \prod_i \pi_i\, 1[x_i = 0] + (1 - \pi_i)\, \mathrm{NB}(x_i;\ \mu_i,
              \alpha_i)

    An element is zero with probability :math:`\pi`, and negative binomial otherwise. The decoder
    gives the mean, the logit of pi (which starts at 5 %) and, on request, the dispersion.

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
        `arXiv:1709.02082 <https://arxiv.org/abs/1709.02082>`_; Single-cell RNA-seq
        denoising using a deep count autoencoder (Eraslan et al., 2019).

    Example:
        >>> import pyrovae as pv
        >>> likelihood = pv.likelihoods.ZeroInflatedNegativeBinomial()
        >>> vae = pv.VAE((4,), latent_dim=2, likelihood=likelihood)
        >>> vae.sample(3).shape
        torch.Size([3, 4])
    """

    gates = 1

    def counts(self, log_mean: Tensor, *rest: Tensor):
        gate, *raw = rest
        theta = 1 / self.dispersion_of(*raw)
        return counts.ZeroInflatedNegativeBinomial(
            log_mean, theta, gate + math.log(_START / (1 - _START))
        )

    def initial_bias(self, mean: Tensor) -> Tensor:
        return super().initial_bias(mean if self.exposure == "total" else mean / (1 - _START))
