"""A summary of importance weights that arrive a few at a time."""

import math

import torch
from torch import Tensor

from pyrovae.weights.jackknife import EXACT, POWERS, leave_out
from pyrovae.weights.tail import pareto_tail, tail_size

BATCHES = 8
"""Interleaved batches whose means :class:`RunningWeights` keeps."""
_SUMS = ("count", "top", "mean", "spread", "powers", "batches", "log_mean", "log_spread")


class RunningWeights:
    r"""A summary of K weights for each of B data, in memory that grows like :math:`\sqrt K`.

    Weights come a few at a time through :meth:`update`. The summary holds the largest weight so
    far; the mean, the centred second moment and power sums relative to it; the moments of the log
    weights; the sums of every eighth weight; and the largest weights themselves, all in float64.
    The results equal those of all weights at once, to rounding.

    Args:
        num_data: B.
        max_particles: The most weights that a datum will get; fixes how many of the largest are
            kept.
        device: Of the sums.

    Example:
        >>> log_w = torch.linspace(-3, 0, 600).reshape(200, 3)
        >>> running = RunningWeights(num_data=3, max_particles=200)
        >>> for few in log_w.split(50):
        ...     running.update(few)
        >>> bool(running.log_mean_exp.allclose(log_w.double().logsumexp(0) - math.log(200)))
        True
    """

    def __init__(self, num_data: int, max_particles: int, device: torch.device | str | None = None):
        kind = {"dtype": torch.float64, "device": device}
        self.keep = min(max_particles, max(tail_size(max_particles) + 1, EXACT))
        self.count = torch.zeros(num_data, dtype=torch.long, device=device)
        self.top = torch.full((num_data,), -math.inf, **kind)
        self.mean = torch.zeros(num_data, **kind)
        self.spread = torch.zeros(num_data, **kind)
        self.powers = torch.zeros(POWERS, num_data, **kind)
        self.batches = torch.zeros(BATCHES, num_data, **kind)  # sums of every eighth weight
        self.log_mean = torch.zeros(num_data, **kind)  # of the log weights
        self.log_spread = torch.zeros(num_data, **kind)
        self.resolution = 0.0  # machine epsilon of the coarsest weights so far
        self._largest = [torch.full((self.keep, num_data), -math.inf, **kind)]

    def update(self, log_w: Tensor) -> None:
        """Take in ``(k, B)`` further log weights. They may be ``-inf``, not NaN or ``inf``."""
        self.resolution = max(self.resolution, torch.finfo(log_w.dtype).eps)
        log_w = log_w.double()
        new = log_w.shape[0]
        top = torch.maximum(self.top, log_w.max(0).values)
        base = torch.where(top.isinf(), 0.0, top)
        ratio = torch.where(self.top.isinf(), 0.0, torch.exp(self.top - base))
        w = torch.exp(log_w - base)
        mean = w.mean(0)
        total = (self.count + new).double()
        # Two parts' moments joined (Chan et al., 1983): no difference of large numbers.
        old_mean, old_spread = self.mean * ratio, self.spread * ratio**2
        self.spread = old_spread + (w - mean).square().sum(0)
        self.spread += (mean - old_mean).square() * (self.count * new / total)
        self.mean = old_mean + (mean - old_mean) * (new / total)
        power = torch.ones_like(w)
        for r in range(POWERS):
            power *= w
            self.powers[r] = self.powers[r] * ratio ** (r + 1) + power.sum(0)
        place = (self.count + torch.arange(new, device=w.device)[:, None]) % BATCHES
        self.batches = (self.batches * ratio).scatter_add_(0, place, w)
        log_mean = log_w.mean(0)
        self.log_spread = self.log_spread + (log_w - log_mean).square().sum(0)
        self.log_spread += (log_mean - self.log_mean).square() * (self.count * new / total)
        self.log_mean = self.log_mean + (log_mean - self.log_mean) * (new / total)
        self.top, self.count = top, self.count + new
        self._largest.append(log_w)
        if sum(part.shape[0] for part in self._largest) > 4 * self.keep + new:
            self._compress()

    def select(self, index: Tensor) -> "RunningWeights":
        """A copy for some of the data."""
        chosen = RunningWeights(0, self.keep, self.top.device)
        chosen.keep, chosen.resolution = self.keep, self.resolution
        for name in _SUMS:
            setattr(chosen, name, getattr(self, name)[..., index])
        chosen._largest = [self.largest[:, index]]
        return chosen

    def replace(self, index: Tensor, chosen: "RunningWeights") -> None:
        """Put back what :meth:`select` took out, after further updates."""
        self.resolution = max(self.resolution, chosen.resolution)
        for name in _SUMS:
            getattr(self, name)[..., index] = getattr(chosen, name)
        self._compress()
        self._largest[0][:, index] = chosen.largest

    @property
    def largest(self) -> Tensor:
        """``(rows, B)``: the largest log weights, descending."""
        self._compress()
        return self._largest[0]

    def _compress(self) -> None:
        if len(self._largest) > 1:
            self._largest = [torch.cat(self._largest).topk(self.keep, dim=0).values]

    @property
    def log_mean_exp(self) -> Tensor:
        """``(B,)``: as :func:`log_mean_exp`."""
        return self.top + self.mean.log()

    @property
    def standard_error(self) -> Tensor:
        """``(B,)``: as :func:`standard_error`; also infinite where no weight is positive."""
        error = (self.spread / (self.count * (self.count - 1))).sqrt() / self.mean
        return torch.where((self.count > 1) & (self.mean > 0), error, math.inf)

    @property
    def ess(self) -> Tensor:
        """``(B,)``: as :func:`ess`; zero where no weight is positive."""
        squares = self.count * self.mean.square()
        return torch.where(self.mean > 0, self.count / (1 + self.spread / squares), 0.0)

    @property
    def log_weight_variance(self) -> Tensor:
        """``(B,)``: sample variance of the log weights; ``nan`` of a single one, ``inf`` where some
        weight is zero.
        """
        variance = self.log_spread / (self.count - 1)
        variance = torch.where(self.log_mean.isfinite(), variance, math.inf)
        return torch.where(self.count < 2, math.nan, variance)

    @property
    def degrees_of_freedom(self) -> Tensor:
        r"""``(B,)``: of the sample variance behind :attr:`standard_error`, between 1 and K - 1.

        They are :math:`2K / (\kappa - 1)` with :math:`\kappa` the kurtosis of the weights, which
        gives a scaled chi-square the sample variance's mean and variance.

        References:
            An Approximate Distribution of Estimates of Variance Components (Satterthwaite, 1946).
        """
        mean, raw = self.mean, self.powers[:4] / self.count
        variance = self.spread / self.count
        fourth = raw[3] - 4 * mean * raw[2] + 6 * mean**2 * raw[1] - 3 * mean**4
        kurtosis = torch.where(variance > 1e-6 * mean**2, fourth / variance**2, 3.0)
        most = (self.count - 1).double().clamp_min(1)
        degrees = 2 * self.count / (kurtosis - 1).clamp_min(1e-3)
        return torch.minimum(degrees.clamp_min(1.0), most)

    @property
    def batch_log_mean_exp(self) -> Tensor:
        """``(B, 8)``: log mean of the weights 1, 9, 17, ...; of the weights 2, 10, 18, ...; and so
        on.
        """
        place = torch.arange(BATCHES, device=self.top.device)[:, None]
        counts = torch.div(self.count + BATCHES - 1 - place, BATCHES, rounding_mode="floor")
        return (self.batches.log() + self.top - counts.log()).T

    def pareto_tail(self, *, margin: float = 0.0, horizon: float = 10_000) -> tuple[Tensor, Tensor]:
        """As :func:`pareto_tail`."""
        k, unseen = torch.empty_like(self.mean), torch.empty_like(self.mean)
        for num in self.count.unique().tolist():
            chosen = self.count == num
            k[chosen], unseen[chosen] = pareto_tail(
                self.largest[:, chosen], num, margin=margin, horizon=horizon
            )
        return k, unseen

    def jackknife(self, order: int = 1) -> Tensor:
        r"""``(B,)``: :func:`log_mean_exp` with its bias reduced to
        :math:`O(K^{-1-\mathrm{order}})`.

        .. math:: J_m = \sum_{j=0}^m (-1)^j \frac{(K-j)^m}{(m-j)!\, j!} \bar L_{K-j}

        where :math:`\bar L_{K-j}` averages the estimate over all ways to leave j particles out. It
        is a bound no longer. The 64 largest weights enter exactly, the others through a series of
        their power sums. ``nan`` where K is not above the order, or where a single weight holds
        everything.

        References:
            Debiasing Evidence Approximations: On Importance-weighted Autoencoders and Jackknife
            Variational Inference (Nowozin, 2018), equation 10.
        """
        if order not in (1, 2):
            raise ValueError(f"The jackknife has order 1 or 2, found {order}.")
        parts = [
            leave_out(self.select(index), order)
            for index in torch.arange(len(self.top), device=self.top.device).split(4096)
        ]
        return torch.cat(parts) if parts else self.top.clone()


def jackknife(log_w: Tensor, order: int = 1) -> Tensor:
    """``(B,)``: as :meth:`RunningWeights.jackknife`, of weights ``(K, B)`` that are all there.

    Example:
        >>> log_w = torch.tensor([[1.0], [3.0]]).log()
        >>> exact = 2 * math.log(2) - math.log(3) / 2  # K = 2, and the mean of leaving one out
        >>> abs(jackknife(log_w).item() - exact) < 1e-6
        True
    """
    running = RunningWeights(log_w.shape[1], log_w.shape[0], log_w.device)
    running.update(log_w)
    return running.jackknife(order)
