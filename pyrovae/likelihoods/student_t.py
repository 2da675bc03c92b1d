"""Real values with heavy tails."""

import math

from torch import Tensor

from pyrovae.distributions import location_scale
from pyrovae.likelihoods.location_scale import LocationScale
from pyrovae.likelihoods.positive import Positive

__all__ = ["StudentT"]


class StudentT(LocationScale):
    r"""Independent Student-t elements, for real values with outliers.

    .. math:: p(x \mid z) = \prod_i t_\nu\Big(\frac{x_i - \mu_i(z)}{\sigma_i}\Big) \frac1{\sigma_i}

    An outlier costs the logarithm of its size. As :math:`\nu` tends to infinity, the distribution
    tends to the Gaussian. For :math:`\nu \le 1` there is no mean, and reconstructions show the
    location, which is the median.

    Args:
        df: The degrees of freedom :math:`\nu`, fixed.
        scale: Where sigma comes from: a positive number (fixed), ``"learned"``, ``"per-element"``
            or ``"decoder"``, as in :class:`~pyrovae.likelihoods.Gaussian`.
        initial_scale: Where a scale that is not fixed starts.
        min_scale: The lower limit of such a scale.

    Raises:
        ValueError: If df or the scale is not positive and finite, if not
            0 <= min_scale < initial_scale, or if x is not finite.

    References:
        Student-t Variational Autoencoder for Robust Density Estimation (Takahashi et al., 2018),
        section 4.

    Example:
        >>> import pyrovae as pv
        >>> vae = pv.VAE((4,), latent_dim=2, likelihood=pv.likelihoods.StudentT(df=4.0))
        >>> vae.sample(3).shape
        torch.Size([3, 4])
    """

    def __init__(
        self,
        df: float = 4.0,
        scale: float | str = "learned",
        initial_scale: float = 1.0,
        min_scale: float = 1e-3,
    ):
        super().__init__()
        if not (math.isfinite(df) and df > 0):
            raise ValueError(
                f"StudentT df must be finite and positive, found {df}. Use Gaussian for its limit."
            )
        self.use_scale(Positive("StudentT scale", scale, initial_scale, min_scale))
        self.df_of = Positive("StudentT df", df)

    def noise(self, loc: Tensor, scale: Tensor):
        return location_scale.StudentT(self.df_of(), loc, scale)

    def mean(self, distribution) -> Tensor:
        noise = distribution.base_dist
        return noise.loc.expand(noise.batch_shape)
