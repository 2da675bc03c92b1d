"""The jackknife of the log mean weight, from power sums and the largest weights."""

import math
from typing import Any

import torch
from torch import Tensor

POWERS = 8  # power sums that RunningWeights keeps
EXACT = 64  # largest weights that enter without a series


def leave_out(state: Any, order: int) -> Tensor:
    """``(B,)``: :meth:`RunningWeights.jackknife` of the running weights ``state``."""
    num = state.count.double()
    share = torch.exp(state.largest[:EXACT] - state.top) / (state.mean * num)  # (T, B), descending
    kept = torch.clamp(num, max=share.shape[0])
    degree = torch.arange(1, POWERS + 1, device=share.device, dtype=share.dtype)[:, None]
    powers = torch.stack([share**r for r in range(1, POWERS + 1)]).sum(1)
    # Power sums of what is left beside the largest; without a remainder, exactly nothing.
    rest = (state.powers / (state.mean * num) ** degree - powers).clamp_min(0)
    rest = torch.where(num > kept, rest, 0.0)
    # None of it exceeds the smallest of the largest, which also cuts rounding.
    for r in range(1, POWERS):
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
    for m in range(1, POWERS + 1):
        cross: Any = sum(math.comb(m, r) * sums[r] * sums[m - r] for r in range(m + 1))
        double -= (cross - 2**m * sums[m]) / (2 * m)
    shift_2 = double / (num * (num - 1) / 2) - torch.log1p(-2 / num)
    value = state.log_mean_exp - (num - 1) ** 2 * shift_1 + (num - 2) ** 2 / 2 * shift_2
    return torch.where(num > 2, value, math.nan)
