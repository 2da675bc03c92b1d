r"""Arithmetic of importance weights, in log space; tensors in, tensors out.

Shapes: ``log_w`` is ``(K, B)``, K particles for each of B data, along ``dim=0`` unless said otherwise.
:class:`RunningWeights` holds what all of these need for weights that arrive a few at a time.
"""

import math
from typing import Any

import torch
from torch import Tensor

_POWERS = 8  # power sums kept by RunningWeights
_EXACT = 64  # largest weights that the jackknife treats without a series
_FLAT = (
    1e-4  # nats between the largest weight and the tail's threshold below which there is no tail
)


def log_mean_exp(log_w: Tensor, dim: int = 0) -> Tensor:
    r"""Stable :math:`\log \frac1K \sum_k e^{\log w_k}` along ``dim``."""
    return torch.logsumexp(log_w, dim) - math.log(log_w.shape[dim])


def ess(log_w: Tensor, dim: int = 0) -> Tensor:
    r"""Effective sample size of self-normalised weights, :math:`(\sum w)^2 / \sum w^2`, between 1 and K.

    References:
        Kong, *A note on importance sampling using standardized weights* (1992).
    """
    return torch.exp(2 * torch.logsumexp(log_w, dim) - torch.logsumexp(2 * log_w, dim))


def standard_error(log_w: Tensor, dim: int = 0) -> Tensor:
    r"""Delta-method standard error of :func:`log_mean_exp`: :math:`\widehat{sd}(w) / (\sqrt K\, \bar w)`.

    The sample variance uses K - 1; with one particle there is no estimate and the result is infinite.
    """
    num = log_w.shape[dim]
    if num == 1:
        return torch.full_like(log_w.select(dim, 0), math.inf)
    relative = torch.exp(log_w - torch.logsumexp(log_w, dim, keepdim=True)) * num  # mean one
    return ((relative - 1).square().sum(dim) / (num * (num - 1))).sqrt()


def leave_one_out(log_w: Tensor) -> Tensor:
    r"""``(K, B)``: :math:`\log \sum_{j \neq k} e^{\log w_j}` for each k, along the first dimension, in O(K).

    Running sums from both ends leave k out, so that a dominant weight is never subtracted again.
    """
    edge = torch.full_like(log_w[:1], -math.inf)
    before = torch.cat([edge, log_w.logcumsumexp(0)[:-1]])
    after = torch.cat([log_w.flip(0).logcumsumexp(0).flip(0)[1:], edge])
    return torch.logaddexp(before, after)


def tail_size(num_particles: int) -> int:
    r"""How many of the largest weights Pareto smoothing takes as the tail: :math:`\min(K / 5, 3 \sqrt K)`.

    References:
        Pareto Smoothed Importance Sampling (Vehtari et al., 2024), section 3.
    """
    return int(3 * math.sqrt(num_particles)) if num_particles > 225 else num_particles // 5


def pareto_k(log_w: Tensor, num_particles: int | None = None) -> Tensor:
    r"""``(B,)``: shape k of the generalised Pareto distribution fitted to the largest weights of each datum.

    Above 0.7 the weights' mean cannot be trusted at any K that one can pay for. The values agree with
    :func:`arviz_stats.base.array_stats.psislw`, and two cases beyond it are defined here: ``-inf`` where the
    largest weights are all equal (to a ten-thousandth), so that there is no tail to fit, and ``inf`` where
    there are too few weights for a diagnosis (K < 25), or none that is positive.

    Args:
        log_w: ``(K, B)``, or only the ``tail_size(K) + 1`` (or more) largest weights of each datum.
        num_particles: K, if ``log_w`` holds only the largest.

    References:
        Pareto Smoothed Importance Sampling (Vehtari et al., 2024); A New and Efficient Estimation Method for
        the Generalized Pareto Distribution (Zhang and Stephens, 2009).
    """
    return pareto_tail(log_w, num_particles)[0]


def pareto_tail(log_w: Tensor, num_particles: int | None = None) -> tuple[Tensor, Tensor]:
    r"""k as :func:`pareto_k`, and the tail's possible share of the mean that K draws did not meet, each ``(B,)``.

    The second is in nats: :math:`\log(1 + \Delta / \bar w)`, with :math:`\Delta` the rise of the mean weight if
    the fitted tail were followed as far as 10,000 K draws would follow it. It is zero where k is not positive (the tail
    ends), and ``inf`` where there is no diagnosis.
    """
    num = num_particles or log_w.shape[0]
    size = tail_size(num)
    if size < 5:
        unknown = torch.full_like(log_w[0], math.inf)
        return unknown, unknown.clone()
    top = log_w.double().topk(size + 1, dim=0).values  # (M + 1, B), descending
    results = [
        _fit_tail(part, num)
        for part in top.split(max(1, 4_000_000 // (size * (30 + math.isqrt(size)))), 1)
    ]
    return torch.cat([k for k, _ in results]), torch.cat([u for _, u in results])


def _fit_tail(top: Tensor, num: int) -> tuple[Tensor, Tensor]:
    size = top.shape[0] - 1
    flat = ~((top[0] - top[-1]) > _FLAT) | (top[0] == top[-2])
    relative = torch.exp(top - top[0])  # largest is one
    excess = relative[:-1].flip(0) - relative[-1]  # (M, B), ascending
    quartile = excess[int(size / 4 + 0.5) - 1]
    ties = (quartile <= 0) & ~flat
    k, scale = _generalized_pareto(excess, torch.where(quartile > 0, quartile, 1.0))
    for column in (
        ties.nonzero().flatten().tolist()
    ):  # discrete weights: fit what exceeds the threshold at all
        positive = excess[:, column][excess[:, column] > 0].unsqueeze(1)
        n = positive.shape[0]
        if n < 5:
            k[column], scale[column] = math.inf, math.inf
        else:
            one = _generalized_pareto(positive, positive[int(n / 4 + 0.5) - 1])
            k[column], scale[column] = one[0][0], one[1][0]
    # Mean of the fitted tail up to its quantile 1 - 1/(10,000 M), against the mean of the tail that was seen.
    rest = 1 / (10_000 * size)
    powers = torch.where(
        (k - 1).abs() < 1e-6, -math.log(rest), -torch.expm1((1 - k) * math.log(rest)) / (1 - k)
    )
    tail_mean = torch.where(k.abs() < 1e-6, scale, scale / k * (powers - (1 - rest)))
    missing = (tail_mean - excess.mean(0)).clamp_min(0) * size / num
    # All weights but the tail count for no less than nothing and the tail itself for what it was seen to be.
    unseen = torch.log1p(missing * num / relative[:-1].sum(0))
    unseen = torch.where(k.isinf(), math.inf, unseen)
    k, unseen = torch.where(flat, -math.inf, k), torch.where(flat | (k <= 0), 0.0, unseen)
    nothing = (
        top[0] == -math.inf
    )  # no weight is positive: equal they are, but no sign of an exact guide
    return torch.where(nothing, math.inf, k), torch.where(nothing, math.inf, unseen)


def _generalized_pareto(excess: Tensor, quartile: Tensor) -> tuple[Tensor, Tensor]:
    """Zhang and Stephens's estimate of k (shrunk towards 1/2) and scale; excess ``(M, B)`` ascending."""
    size = excess.shape[0]
    grid = 30 + math.isqrt(size)
    steps = torch.arange(1, grid + 1, dtype=excess.dtype, device=excess.device) - 0.5
    theta = (1 - (grid / steps).sqrt())[:, None] / (3 * quartile) + 1 / excess[-1]  # (grid, B)
    shape = torch.log1p(-theta[:, None] * excess).mean(1)
    likelihood = size * ((-theta / shape).log() - shape - 1)
    weight = likelihood.softmax(0)
    weight = torch.where(weight >= 10 * torch.finfo(weight.dtype).eps, weight, 0.0)
    theta = (theta * weight).sum(0) / weight.sum(0)
    k = torch.log1p(-theta * excess).mean(0)
    return (size * k + 5) / (size + 10), -k / theta


class RunningWeights:
    r"""What is to be known of K weights for each of B data, kept in memory that grows like :math:`\sqrt K`.

    Weights come a few at a time through :meth:`update`. Held are the largest weight met, mean and centred second
    moment relative to it, power sums, and the largest weights themselves, all in float64. So the results are those
    of all weights at once, to rounding.

    Args:
        num_data: B.
        max_particles: The most weights that a datum will get; fixes how many of the largest are kept.
        device: Of the sums.
    """

    def __init__(self, num_data: int, max_particles: int, device: torch.device | str | None = None):
        kind = {"dtype": torch.float64, "device": device}
        self.keep = min(max_particles, max(tail_size(max_particles) + 1, _EXACT))
        self.count = torch.zeros(num_data, dtype=torch.long, device=device)
        self.top = torch.full((num_data,), -math.inf, **kind)
        self.mean = torch.zeros(num_data, **kind)
        self.spread = torch.zeros(num_data, **kind)
        self.powers = torch.zeros(_POWERS, num_data, **kind)
        self._largest = [torch.full((self.keep, num_data), -math.inf, **kind)]

    def update(self, log_w: Tensor) -> None:
        """Take in ``(k, B)`` further log weights. They may be ``-inf``, not NaN or ``inf``."""
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
        for r in range(_POWERS):
            power *= w
            self.powers[r] = self.powers[r] * ratio ** (r + 1) + power.sum(0)
        self.top, self.count = top, self.count + new
        self._largest.append(log_w)
        if sum(part.shape[0] for part in self._largest) > 4 * self.keep + new:
            self._compress()

    def select(self, index: Tensor) -> "RunningWeights":
        """A copy for some of the data."""
        part = RunningWeights(0, self.keep, self.top.device)
        part.keep = self.keep
        part.count, part.top = self.count[index], self.top[index]
        part.mean, part.spread, part.powers = (
            self.mean[index],
            self.spread[index],
            self.powers[:, index],
        )
        part._largest = [self.largest[:, index]]
        return part

    def replace(self, index: Tensor, part: "RunningWeights") -> None:
        """Put back what :meth:`select` took out, after further updates."""
        self.count[index], self.top[index] = part.count, part.top
        self.mean[index], self.spread[index], self.powers[:, index] = (
            part.mean,
            part.spread,
            part.powers,
        )
        self._compress()
        self._largest[0][:, index] = part.largest

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

    def pareto_tail(self) -> tuple[Tensor, Tensor]:
        """As :func:`pareto_tail`."""
        k, unseen = torch.empty_like(self.mean), torch.empty_like(self.mean)
        for num in self.count.unique().tolist():
            chosen = self.count == num
            k[chosen], unseen[chosen] = pareto_tail(self.largest[:, chosen], num)
        return k, unseen

    def jackknife(self, order: int = 1) -> Tensor:
        r"""``(B,)``: :func:`log_mean_exp` with its bias reduced to :math:`O(K^{-1-\mathrm{order}})`.

        .. math:: J_m = \sum_{j=0}^m (-1)^j \frac{(K-j)^m}{(m-j)!\, j!} \bar L_{K-j}

        where :math:`\bar L_{K-j}` averages the estimate over all ways to leave j particles out. It is a bound no
        longer. The 64 largest weights enter exactly, the others through a series of their power sums.
        ``nan`` where K is not above the order, or where a single weight holds everything.

        References:
            Debiasing Evidence Approximations: On Importance-weighted Autoencoders and Jackknife Variational
            Inference (Nowozin, 2018), equation 10.
        """
        if order not in (1, 2):
            raise ValueError(f"The jackknife has order 1 or 2, found {order}.")
        parts = [
            _jackknife(self.select(index), order)
            for index in torch.arange(len(self.top), device=self.top.device).split(4096)
        ]
        return torch.cat(parts) if parts else self.top.clone()


def jackknife(log_w: Tensor, order: int = 1) -> Tensor:
    """``(B,)``: as :meth:`RunningWeights.jackknife`, of weights ``(K, B)`` at hand."""
    running = RunningWeights(log_w.shape[1], log_w.shape[0], log_w.device)
    running.update(log_w)
    return running.jackknife(order)


def _jackknife(state: RunningWeights, order: int) -> Tensor:
    num = state.count.double()
    share = torch.exp(state.largest[:_EXACT] - state.top) / (state.mean * num)  # (T, B), descending
    kept = torch.clamp(num, max=share.shape[0])
    degree = torch.arange(1, _POWERS + 1, device=share.device, dtype=share.dtype)[:, None]
    powers = torch.stack([share**r for r in range(1, _POWERS + 1)]).sum(1)
    # Power sums of what is left beside the largest; without a remainder, exactly nothing.
    rest = (state.powers / (state.mean * num) ** degree - powers).clamp_min(0)
    rest = torch.where(num > kept, rest, 0.0)
    for r in range(
        1, _POWERS
    ):  # none of it exceeds the smallest of the largest: that also cuts rounding
        rest[r] = torch.minimum(rest[r], rest[r - 1] * share[-1])
    others = 1 - share
    others[0] = share[1:].sum(0) + rest[0]  # no difference: it may be tiny
    single = others.log().sum(0) - (rest / degree).sum(0)
    shift_1 = single / num - torch.log1p(-1 / num)
    if order == 1:
        value = state.log_mean_exp - (num - 1) * shift_1
        return torch.where(num > 1, value, math.nan)
    rows = share.shape[0]
    i, j = torch.triu_indices(rows, rows, 1, device=share.device)
    pairs = 1 - share[i] - share[j]
    first = i == 0
    pairs[first] = others[0] - share[1:]
    if rows > 1:
        pairs[(i == 0) & (j == 1)] = share[2:].sum(0) + rest[0]
    real = j[:, None] < kept
    double = torch.where(real, pairs.log(), 0.0).sum(0)
    left = num - kept
    ratio = rest[:, None] / others ** degree[:, :, None] / degree[:, :, None]
    mixed = left * others.log() - ratio.sum(0)
    double += torch.where(torch.arange(rows, device=share.device)[:, None] < kept, mixed, 0.0).sum(
        0
    )
    sums = torch.cat([left[None], rest])
    for m in range(1, _POWERS + 1):
        cross: Any = sum(math.comb(m, r) * sums[r] * sums[m - r] for r in range(m + 1))
        double -= (cross - 2**m * sums[m]) / (2 * m)
    shift_2 = double / (num * (num - 1) / 2) - torch.log1p(-2 / num)
    value = state.log_mean_exp - (num - 1) ** 2 * shift_1 + (num - 2) ** 2 / 2 * shift_2
    return torch.where(num > 2, value, math.nan)
