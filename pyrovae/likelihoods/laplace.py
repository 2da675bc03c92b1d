"""Real values with Laplace noise."""

from torch import Tensor

from pyrovae.distributions import location_scale
from pyrovae.likelihoods.location_scale import LocationScale
from pyrovae.likelihoods.positive import Positive

__all__ = ["Laplace"]


class Laplace(LocationScale):
    r"""Independent Laplace elements, which weigh outliers less than Gaussian ones.

    .. math:: \log p(x \mid z) = -\sum_i \frac{|x_i - \mu_i(z)|}{b_i} + \log 2 b_i

    The decoder gives the locations, and errors count by their absolute value.

    Args:
        scale: Where the scale b comes from: a positive number (fixed), ``"learned"``,
            ``"per-element"`` or ``"decoder"``, as in :class:`~pyrovae.likelihoods.Gaussian`.
        initial_scale: Where a scale that is not fixed starts.
        min_scale: The lower limit of such a scale.

    Raises:
        ValueError: If the scale is neither positive and finite nor one of the names, if not
            0 <= min_scale < initial_scale, or if x is not finite.

    References:
        Mémoire sur la probabilité des causes par les évènements (Laplace, 1774), for his first law
        of errors.

    Example:
        >>> import pyrovae as pv
        >>> vae = pv.VAE((4,), latent_dim=2, likelihood=pv.likelihoods.Laplace("learned"))
        >>> vae.sample(3).shape
        torch.Size([3, 4])
    """

    def __init__(
        self, scale: float | str = 1.0, initial_scale: float = 1.0, min_scale: float = 1e-3
    ):
        super().__init__()
        self.use_scale(Positive("Laplace scale", scale, initial_scale, min_scale))

    def noise(self, loc: Tensor, scale: Tensor):
        return location_scale.Laplace(loc, scale)
