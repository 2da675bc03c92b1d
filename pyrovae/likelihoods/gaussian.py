"""Real values with Gaussian noise."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyrovae.likelihoods.base import Likelihood

__all__ = ["Gaussian"]

_MODES = ("learned", "per-element", "decoder")


class Gaussian(Likelihood):
    r"""Independent Gaussian elements; the decoder gives the mean.

    .. math:: p(x \mid z) = \prod_i N(x_i;\ \mu_i(z),\ \sigma_i^2)

    Args:
        scale: Where sigma comes from: a positive number (fixed); ``"learned"`` (one for all elements);
            ``"per-element"`` (one each); ``"decoder"`` (a second output of the decoder, for each x).
        initial_scale: Where a learned scale starts.
        min_scale: Added to a learned or decoded scale, so that a perfect reconstruction has a finite density.

    Raises:
        ValueError: If the scale is neither positive and finite nor one of the names, or min_scale is negative.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014), appendix C.2; Simple and Effective VAE
        Training with Calibrated Decoders (Rybkin et al., 2021) for a learned scale.
    """

    fixed_scale: Tensor

    def __init__(self, scale: float | str = 1.0, initial_scale: float = 1.0, min_scale: float = 1e-3):
        super().__init__()
        if isinstance(scale, str):
            if scale not in _MODES:
                raise ValueError(f"Gaussian scale must be a positive number or one of {_MODES}, found {scale!r}.")
        elif not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"Gaussian scale must be finite and positive, found {scale}.")
        if not 0 <= min_scale < initial_scale < math.inf:
            raise ValueError(f"Need 0 <= min_scale < initial_scale, found {min_scale} and {initial_scale}.")
        self.scale, self.initial_scale, self.min_scale = scale, initial_scale, min_scale
        self.num_outputs = 2 if scale == "decoder" else 1
        self.raw_scale: nn.Parameter | None = None

    def build(self) -> None:
        if self.scale in ("learned", "per-element"):
            shape = self.data_shape if self.scale == "per-element" else ()
            start = self.initial_scale - self.min_scale
            self.raw_scale = nn.Parameter(torch.full(shape, math.log(math.expm1(start)) if start < 30 else start))
        elif not isinstance(self.scale, str):
            self.register_buffer("fixed_scale", torch.tensor(float(self.scale)), persistent=False)

    def distribution(self, outputs: Tensor):
        loc, *raw = outputs.unbind(self.output_dim)
        if raw:
            scale = softplus(raw[0]) + self.min_scale
        elif self.raw_scale is not None:
            scale = softplus(self.raw_scale) + self.min_scale
        else:
            scale = self.fixed_scale
        return dist.Normal(loc, scale, validate_args=False)

    def initial_bias(self, mean: Tensor) -> Tensor:
        bias = torch.zeros(self.output_shape(), dtype=mean.dtype, device=mean.device)
        bias.select(self.output_dim, 0).copy_(mean)
        return bias
