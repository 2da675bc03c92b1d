"""Counts whose variance exceeds their mean."""

from torch import Tensor

from pyrovae.distributions import counts
from pyrovae.likelihoods.counts import Counts
from pyrovae.likelihoods.positive import Positive

__all__ = ["NegativeBinomial"]


class NegativeBinomial(Counts):
    r"""Independent negative binomial elements with mean :math:`\mu` and variance :math:`\mu + \alpha\mu^2`.

    .. math:: p(x \mid z) = \prod_i \frac{\Gamma(x_i + \theta_i)}{\Gamma(\theta_i)\, x_i!}
              \Big(\frac{\theta_i}{\theta_i + \mu_i}\Big)^{\theta_i}
              \Big(\frac{\mu_i}{\theta_i + \mu_i}\Big)^{x_i}, \qquad \theta = 1/\alpha

    The dispersion :math:`\alpha \to 0` is the Poisson.

    Args:
        dispersion: Where alpha comes from: a positive number, ``"learned"``, ``"per-element"`` (one for each
            gene, say) or ``"decoder"``.
        initial_dispersion: Where a dispersion that is not fixed starts.
        exposure: None, or ``"total"`` to condition on each datum's total n (its library size): means are then
            n times a softmax of the decoder, and bounds and evidence are those of log p(x | n).
        typical_total: With ``"total"``, the n of draws and means.
        link: Without exposure, ``"softplus"`` or ``"exp"``: how a decoder output becomes a mean.

    Raises:
        ValueError: If an argument is another word or not positive; on use, if x holds anything but counts.

    References:
        Deep generative modeling for single-cell transcriptomics (Lopez et al., 2018), methods.
    """

    def __init__(
        self,
        dispersion: float | str = "per-element",
        initial_dispersion: float = 0.1,
        exposure: str | None = None,
        typical_total: float = 1000.0,
        link: str = "softplus",
    ):
        super().__init__()
        self.use_exposure(exposure, typical_total, link)
        name = f"{type(self).__name__} dispersion"
        self.dispersion_of = Positive(name, dispersion, initial_dispersion, floor=1e-8, link="exp")
        self.num_outputs = 1 + self.dispersion_of.num_outputs

    def build(self) -> None:
        self.dispersion_of.build(self.data_shape)

    def counts(self, log_mean: Tensor, *rest: Tensor):
        return counts.NegativeBinomial(log_mean, 1 / self.dispersion_of(*rest))
