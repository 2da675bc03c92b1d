"""Counts whose variance is their mean."""

from torch import Tensor

from pyrovae.distributions import counts
from pyrovae.likelihoods.counts import Counts

__all__ = ["Poisson"]


class Poisson(Counts):
    r"""Independent Poisson elements, for counts.

    .. math:: \log p(x \mid z) = \sum_i x_i \log\mu_i - \mu_i - \log x_i!

    Args:
        exposure: None, or ``"total"`` to condition on the total count n of each datum (its library
            size). The means are then n times a softmax of the decoder outputs, and bounds and
            evidence are those of log p(x | n).
        typical_total: With ``exposure="total"``, the n of samples and means.
        link: Without exposure, how a decoder output becomes a mean: ``"softplus"`` or ``"exp"``.

    Raises:
        ValueError: If an argument has none of these values, or if x holds anything but counts.

    References:
        Deep exponential families (Ranganath et al., 2015), section 2, for deep Poisson models of
        counts, `arXiv:1411.2581 <https://arxiv.org/abs/1411.2581>`_.

    Example:
        >>> import pyrovae as pv
        >>> vae = pv.VAE((4,), latent_dim=2, likelihood=pv.likelihoods.Poisson())
        >>> vae.sample(3).shape
        torch.Size([3, 4])
    """

    def __init__(
        self, exposure: str | None = None, typical_total: float = 1000.0, link: str = "softplus"
    ):
        super().__init__()
        self.use_exposure(exposure, typical_total, link)

    def counts(self, log_mean: Tensor, *rest: Tensor):
        return counts.Poisson(log_mean)
