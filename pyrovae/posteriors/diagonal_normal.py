"""The usual Gaussian encoder."""

import pyro.distributions as dist
from torch import Tensor
from torch.nn.functional import softplus

from pyrovae.posteriors.base import Posterior

__all__ = ["DiagonalNormal"]


class DiagonalNormal(Posterior):
    r"""Mean-field Gaussian, :math:`q(z \mid x) = N(\mu(x), \operatorname{diag} \sigma^2(x))`.

    Draws are reparameterised, :math:`z = \mu + \sigma \epsilon` with :math:`\epsilon \sim N(0, I)`.

    Args:
        scale: How the encoder's second output becomes sigma: ``"softplus"``, or ``"exp"`` (of half a
            log-variance).
        log_variance_range: With ``"exp"``, clamp the log-variance to this interval, as Tomczak and Welling
            (2018) do with (-6, 2).
        min_scale: With ``"softplus"``, added to sigma so that it never vanishes.

    Raises:
        ValueError: If ``scale`` is another word, the range is empty or given without ``"exp"``, or ``min_scale`` is
            negative.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014), equation 9.
    """

    def __init__(
        self,
        scale: str = "softplus",
        log_variance_range: tuple[float, float] | None = None,
        min_scale: float = 1e-6,
    ):
        super().__init__()
        if scale not in ("softplus", "exp"):
            raise ValueError(f"DiagonalNormal scale must be 'softplus' or 'exp', found {scale!r}.")
        if not min_scale >= 0:
            raise ValueError(f"min_scale must not be negative, found {min_scale}.")
        if log_variance_range is not None and (
            scale != "exp" or not log_variance_range[0] < log_variance_range[1]
        ):
            raise ValueError(
                f"log_variance_range must be (low, high) with low < high and scale='exp', found "
                f"{log_variance_range} with scale={scale!r}."
            )
        self.scale, self.log_variance_range, self.min_scale = scale, log_variance_range, min_scale

    def output_size(self) -> int:
        return 2 * self.latent_dim

    def distribution(self, outputs: Tensor):
        loc, raw = outputs.chunk(2, dim=-1)  # (*batch, D) each
        if self.scale == "softplus":
            sigma = softplus(raw) + self.min_scale
        else:
            sigma = (
                0.5
                * (raw if self.log_variance_range is None else raw.clamp(*self.log_variance_range))
            ).exp()
        return dist.Normal(loc, sigma, validate_args=False).to_event(1)
