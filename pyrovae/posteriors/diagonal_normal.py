"""The usual Gaussian posterior."""

from typing import Literal

import pyro.distributions as dist
from torch import Tensor
from torch.nn.functional import softplus

from pyrovae.posteriors.base import Posterior, check_not_negative

__all__ = ["DiagonalNormal"]


class DiagonalNormal(Posterior):
    r"""Mean-field Gaussian, :math:`q(z \mid x) = N(\mu(x), \operatorname{diag} \sigma^2(x))`.

    Draws are reparameterised, :math:`z = \mu + \sigma \epsilon` with :math:`\epsilon \sim N(0, I)`.
    The encoder has 2 D outputs.

    Args:
        scale: How sigma follows from the encoder's outputs: ``"softplus"``, or ``"exp"`` of half a
            log-variance.
        log_variance_range: With ``"exp"``, the interval to which the log-variance is clamped;
            Tomczak and Welling (2018) take (-6, 2).
        min_scale: With ``"softplus"``, added to sigma so that it never vanishes.

    Raises:
        ValueError: If ``scale`` is another word, the range is empty or given without ``"exp"``, or
            ``min_scale`` is negative.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014), equation 9,
        `arXiv:1312.6114 <https://arxiv.org/abs/1312.6114>`_.

    Example:
        >>> import torch
        >>> from pyrovae import nets
        >>> q = DiagonalNormal().bind(latent_dim=2, data_shape=(6,), encoder=nets.MLP(8))
        >>> q(torch.zeros(5, 6)).mean.shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        scale: Literal["softplus", "exp"] = "softplus",
        log_variance_range: tuple[float, float] | None = None,
        min_scale: float = 1e-6,
    ):
        super().__init__()
        if scale not in ("softplus", "exp"):
            raise ValueError(f"DiagonalNormal scale must be 'softplus' or 'exp', found {scale!r}.")
        if log_variance_range is not None and (
            scale != "exp" or not log_variance_range[0] < log_variance_range[1]
        ):
            raise ValueError(
                "log_variance_range must be (low, high) with low < high and scale='exp', found "
                f"{log_variance_range} with scale={scale!r}."
            )
        self.scale, self.log_variance_range = scale, log_variance_range
        self.min_scale = check_not_negative(min_scale)

    def output_size(self) -> int:
        return 2 * self.latent_dim

    def distribution(self, outputs: Tensor):
        loc, raw = outputs.chunk(2, dim=-1)  # (*batch, D) each
        if self.scale == "softplus":
            sigma = softplus(raw) + self.min_scale
        else:
            if self.log_variance_range is not None:
                raw = raw.clamp(*self.log_variance_range)
            sigma = (0.5 * raw).exp()
        return dist.Normal(loc, sigma, validate_args=False).to_event(1)
