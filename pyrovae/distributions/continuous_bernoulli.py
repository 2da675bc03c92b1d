"""The continuous Bernoulli, accurate for every logit."""

import torch
from torch import Tensor
from torch.distributions import constraints

from pyrovae.distributions.elementwise import Elementwise

__all__ = ["ContinuousBernoulli", "continuous_bernoulli_mean"]

# log(sinh(l/2) / (l/2)) as a series in l^2: B_2n / (2n (2n)!), n = 1...8; for |l| <= 1 what is left
# out is < 1e-15.
_SERIES = (
    1 / 24, -1 / 2880, 1 / 181440, -1 / 9676800, 1 / 479001600,
    -691 / 15692092416000, 1 / 1046139494400, -3617 / 170729965486080000,
)  # fmt: skip


def _log_mass(size: Tensor) -> Tensor:
    r""":math:`\log((1 - e^{-s}) / s)` for s >= 0, with exact gradients."""
    small = size < 1
    # Each formula is finite where the other holds. A clamp would have gradient zero at 1 itself.
    near, far = torch.where(small, size, 0.0), torch.where(small, 1.0, size)
    square = near.square()
    series = torch.zeros_like(near)
    for coefficient in reversed(_SERIES):
        series = square * (series + coefficient)
    return torch.where(small, series - 0.5 * near, torch.log(-torch.expm1(-far)) - far.log())


def continuous_bernoulli_mean(logits: Tensor) -> Tensor:
    r"""The mean of a continuous Bernoulli, :math:`1/(1 - e^{-l}) - 1/l`, which is 1/2 at l = 0."""
    small = logits.abs() < 1
    near = torch.where(small, logits, 0.0)
    series = torch.zeros_like(near)
    for n in range(len(_SERIES), 0, -1):
        series = near.square() * series + 2 * n * _SERIES[n - 1]
    size = torch.where(small, 1.0, logits).abs()
    tail = 0.5 - torch.exp(-size) / torch.expm1(-size) - 1 / size
    return 0.5 + torch.where(small, near * series, torch.sign(logits) * tail)


class ContinuousBernoulli(Elementwise):
    r"""Elements in [0, 1] whose density has the kernel of a Bernoulli.

    .. math:: p(x) = \frac{l}{e^l - 1} e^{l x}

    The normaliser is 0/0 at l = 0 (lambda = 1/2). torch interpolates it by a Taylor polynomial of
    two terms inside a window; here a series good to rounding covers |l| < 1 and an expression
    without cancellation the rest, so values and gradients are accurate everywhere.

    References:
        The continuous Bernoulli (Loaiza-Ganem and Cunningham, 2019), equations 6 to 8,
        `arXiv:1907.06845 <https://arxiv.org/abs/1907.06845>`_.

    Args:
        logits: :math:`l = \log\lambda/(1 - \lambda)`, any real.
    """

    support = constraints.unit_interval
    logits: Tensor

    def __init__(self, logits: Tensor):
        super().__init__(logits=logits)

    def density(self, value: Tensor) -> Tensor:
        # Measured from the end that the logit favours, so that nothing cancels; |l|' at 0 must not
        # be 0.
        right = self.logits > 0
        size = torch.where(right, self.logits, -self.logits)
        return torch.where(right, value - 1, -value) * size - _log_mass(size)

    def draw(self, logits: Tensor) -> Tensor:
        u = torch.rand_like(logits)
        # Inverted on the side where exp cannot overflow: x(u; l) = 1 - x(1 - u; -l).
        slope = -logits.abs()
        tiny = slope > -torch.finfo(logits.dtype).tiny
        x = torch.where(
            tiny, u, torch.log1p(u * torch.expm1(slope)) / slope.masked_fill(tiny, -1.0)
        )
        return torch.where(logits > 0, 1 - x, x).clamp(0, 1)

    @property
    def mean(self) -> Tensor:
        return continuous_bernoulli_mean(self.logits).expand(self._batch_shape)
