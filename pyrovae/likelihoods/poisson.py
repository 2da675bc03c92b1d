"""Counts whose variance is their mean."""

from torch import Tensor

from pyrovae.distributions import counts
from pyrovae.likelihoods.counts import Counts

__all__ = ["Poisson"]


class Poisson(Counts):
    r"""Independent Poisson elements, x in {0, 1, 2, ...}.

    .. math:: \log p(x \mid z) = \sum_i x_i \log\mu_i - \mu_i - \log x_i!

    Args:
        exposure: None, or ``"total"`` to condition on each datum's total n (its library size): means are then
            n times a softmax of the decoder, and bounds and evidence are those of log p(x | n).
        typical_total: With ``"total"``, the n of draws and means.
        link: Without exposure, ``"softplus"`` or ``"exp"``: how a decoder output becomes a mean.

    Raises:
        ValueError: If an argument is another word or not positive; on use, if x holds anything but counts.

    References:
        Deep exponential families (Ranganath et al., 2015), section 2, for deep Poisson models of counts.
    """

    def __init__(
        self, exposure: str | None = None, typical_total: float = 1000.0, link: str = "softplus"
    ):
        super().__init__()
        self.use_exposure(exposure, typical_total, link)

    def counts(self, log_mean: Tensor, *rest: Tensor):
        return counts.Poisson(log_mean)
