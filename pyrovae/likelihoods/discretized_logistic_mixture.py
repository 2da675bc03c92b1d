"""Grey levels and colours by a mixture of rounded logistics."""

import math

import torch
from torch import Tensor

from pyrovae.declare import is_count
from pyrovae.distributions import discretized
from pyrovae.likelihoods.base import solve_increasing
from pyrovae.likelihoods.levels import Levels
from pyrovae.likelihoods.positive import Positive

__all__ = ["DiscretizedLogisticMixture"]


class DiscretizedLogisticMixture(Levels):
    r"""A mixture of discretised logistics for each colour pixel, or for each element of other data.

    .. math:: p(x \mid z) = \prod_i \sum_{m=1}^M \pi_{mi} \prod_c
              \mathrm{DL}(x_{ci};\ \tilde\mu_{mci}, s_{mci})

    In images ``(3, H, W)`` the channels c of a pixel share the component. The location of green is
    linear in red, and that of blue in red and green, with slopes :math:`\tanh` of decoder outputs.
    This takes 10 M outputs a pixel. In data of another shape each element has a mixture of its own,
    with 3 M outputs. The components start evenly spread over the grey levels.

    The mean is approximate. Without coupled channels it is within half a level of the exact one.
    With them, green and blue are evaluated at the means of the channels before them.

    Args:
        num_components: The number M of components.
        num_levels: The number L of levels, 256 for 8-bit images. Level k is stored as k / (L - 1).
        coupled: Whether the channels of ``(3, H, W)`` images are coupled. By default they are where
            there are three.
        initial_scale: Where the scales start, in units of the stored values.
        min_scale: Their lower limit.

    Raises:
        ValueError: If num_components or num_levels is too small, if images to be coupled are not
            ``(3, H, W)``, or if x holds anything but the levels.

    References:
        PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other
        Modifications (Salimans et al., 2017), equations 1 to 3,
        `arXiv:1701.05517 <https://arxiv.org/abs/1701.05517>`_.

    Example:
        >>> import pyrovae as pv
        >>> likelihood = pv.likelihoods.DiscretizedLogisticMixture(5)
        >>> vae = pv.VAE((3, 8, 8), latent_dim=2, likelihood=likelihood)
        >>> vae.sample(3).shape
        torch.Size([3, 3, 8, 8])
    """

    def __init__(
        self,
        num_components: int = 10,
        num_levels: int = 256,
        coupled: bool | None = None,
        initial_scale: float = 0.1,
        min_scale: float = 5e-4,
    ):
        super().__init__()
        if not is_count(num_components):
            raise ValueError(
                f"num_components must be a positive integer, found {num_components!r}."
            )
        self.use_levels(num_levels)
        self.num_components, self.coupled = num_components, coupled
        self.scale_of = Positive(
            "DiscretizedLogisticMixture scale", "decoder", initial_scale, min_scale
        )

    def build(self) -> None:
        colour = len(self.data_shape) == 3 and self.data_shape[0] == 3
        if self.coupled and not colour:
            raise ValueError(
                "coupled=True needs colour images of shape (3, H, W), found "
                f"data_shape={self.data_shape}. Move the channels first, or use coupled=False."
            )
        self._colour = colour if self.coupled is None else self.coupled
        self._pixels = self.data_shape[1:] if self._colour else self.data_shape
        self.num_outputs = (10 if self._colour else 3) * self.num_components

    def output_shape(self) -> tuple[int, ...]:
        return (self.num_outputs, *self._pixels)

    def distribution(self, outputs: Tensor):
        components, dims = self.num_components, len(self._pixels)
        channels = (3,) if self._colour else ()
        sizes = [components] + [components * math.prod(channels)] * (3 if self._colour else 2)
        logits, loc, raw, *coupling = outputs.split(sizes, -1 - dims)

        def by_channel(tensor: Tensor) -> Tensor:
            return tensor.unflatten(-1 - dims, (components, *channels))  # (*batch, M, [3,] *pixels)

        return discretized.DiscretizedLogisticMixture(
            logits,
            by_channel(loc) + self._spread(loc).reshape(-1, *[1] * (len(channels) + dims)),
            self.scale_of(by_channel(raw)),
            *(by_channel(slopes).tanh() for slopes in coupling),
            num_levels=self.num_levels,
            num_pixel_dims=dims,
        )

    def initial_bias(self, mean: Tensor) -> Tensor:
        """One shift of all components that gives this mean, channels apart."""
        shape = (self.num_components, *self.data_shape)
        spread = self._spread(mean).reshape(-1, *[1] * len(self.data_shape)).expand(shape)
        scale = self.scale_of(torch.zeros_like(mean))

        def mean_of(shift: Tensor) -> Tensor:
            return discretized.clipped_mean(spread + shift, scale).mean(0)

        shift = solve_increasing(mean_of, mean.clamp(0.01, 0.99)).expand(shape)
        bias = torch.zeros(self.output_shape(), dtype=mean.dtype, device=mean.device)
        loc = bias.narrow(0, self.num_components, self.num_components * (3 if self._colour else 1))
        loc.copy_(shift.reshape(loc.shape))
        return bias

    def _spread(self, like: Tensor) -> Tensor:
        """``(M,)``: the middles of M equal stretches of [0, 1]."""
        places = torch.arange(self.num_components, dtype=like.dtype, device=like.device)
        return (places + 0.5) / self.num_components
