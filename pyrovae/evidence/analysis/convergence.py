"""How an importance estimate rises with K, and its extrapolated limit."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pyrovae import plots
from pyrovae.declare import html_table
from pyrovae.evidence.inspection import in_pieces, inspect
from pyrovae.evidence.methods.base import check_count
from pyrovae.evidence.methods.importance import ImportanceSampling
from pyrovae.evidence.plan import plan
from pyrovae.programs import Program
from pyrovae.weights import RunningWeights, log_mean_exp

if TYPE_CHECKING:
    import xarray

_FLOAT_BYTES = 8

__all__ = ["Convergence", "convergence"]


class Convergence:
    """Mean importance estimates by K, from one set of particles, and their extrapolation.

    ``dataset`` holds over ``num_particles``: ``mean``, the mean over data of the estimate with K
    particles, a lower bound in expectation that rises with K; and ``debiased``, ``debiased_twice``,
    the jackknife of it.

    Example:
        See :func:`convergence`, which makes it.
    """

    def __init__(self, dataset: "xarray.Dataset"):
        self.dataset = dataset

    def extrapolate(self) -> tuple[float, float]:
        r"""The limit L and the exponent a of :math:`L - c K^{-a}` through the estimates of the
        three largest K.

        For weights of finite variance a is 1. A small exponent is a sign of heavy tails, and the
        limit is then a guess. Both are ``nan`` where the three estimates do not rise by less and
        less.

        Raises:
            ValueError: If the last three K are not in equal ratios.
        """
        counts = self.dataset["num_particles"].values[-3:].astype(float)
        if len(counts) < 3 or abs(counts[2] * counts[0] / counts[1] ** 2 - 1) > 0.05:
            raise ValueError(
                "The extrapolation needs three K in equal ratios, such as 500, 1000, 2000; found "
                f"{counts}."
            )
        first, second, third = self.dataset["mean"].values[-3:]
        early, late = second - first, third - second
        if not 0 < late < early:
            return float("nan"), float("nan")
        shrink = late / early
        return float(third + late * shrink / (1 - shrink)), float(
            -np.log(shrink) / np.log(counts[1] / counts[0])
        )

    def plot(self, axes: Any = None) -> Any:
        """The estimates against K: :func:`pyrovae.plots.convergence`."""
        return plots.convergence(self, axes)

    def _repr_html_(self) -> str:
        names = ("mean", "debiased", "debiased_twice")
        columns = [self.dataset[name].values for name in names]
        rows = zip(self.dataset["num_particles"].values, *columns, strict=True)
        shown = [(f"{k:,}", *(f"{value:.4f}" for value in values)) for k, *values in rows]
        head = ("K", "mean", "jackknife 1", "jackknife 2")
        return html_table("log p(x) by the number of particles K, nats per datum", shown, head)

    def __repr__(self) -> str:
        lines = [f"{'K':>8}  {'mean':>10}  {'jackknife 1':>11}  {'jackknife 2':>11}"]
        for row in range(self.dataset.sizes["num_particles"]):
            one = self.dataset.isel(num_particles=row)
            lines.append(
                f"{int(one['num_particles']):>8}  {float(one['mean']):>10.4f}  "
                f"{float(one['debiased']):>11.4f}  {float(one['debiased_twice']):>11.4f}"
            )
        return "\n".join(lines)


def convergence(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num_particles: Sequence[int] = (1, 10, 100, 1000),
    seed: int = 0,
    memory_budget: int | None = None,
    device: Any = None,
    max_plate_nesting: int | None = None,
) -> Convergence:
    """Importance estimates at several K.

    The particles of the largest K are split into disjoint sets of each smaller K, and the estimates
    of the sets are averaged. So the mean at K = 1 is the ELBO, and only the largest K costs time.

    Args:
        num_particles: The values of K, in rising order.
        model, guide, data, seed, memory_budget, device, max_plate_nesting: As
            :func:`~pyrovae.evidence.log_marginal`.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian(shift=1.0)
        >>> x = oracle.sample(50)
        >>> found = convergence(oracle.model, oracle.guide, x, num_particles=(1, 10, 100))
        >>> gaps = oracle.log_prob(x).mean().item() - found.dataset["mean"].values
        >>> bool(gaps[0] > gaps[1] > gaps[2])
        True
    """
    import xarray

    counts = [check_count("num_particles", count) for count in num_particles]
    if not counts or sorted(set(counts)) != counts:
        raise ValueError(f"num_particles must rise, found {list(num_particles)}.")
    inspection = inspect(model, guide, data, seed, memory_budget, device, max_plate_nesting)
    most = counts[-1]
    sums = {name: np.zeros(len(counts)) for name in ("mean", "debiased", "debiased_twice")}
    with inspection.evaluating():
        work = plan(inspection, most, bytes_per_datum=_FLOAT_BYTES * 4 * most)
        for index in in_pieces(inspection.num_data, work.num_data):
            some = inspection.sampler().select(index)
            chunks = [part.double() for part in some.weight_chunks(most, work.num_particles)]
            log_w = torch.cat(chunks)  # (K, B)
            for i, count in enumerate(counts):
                sets = log_w[: most // count * count].reshape(most // count, count, -1)
                sums["mean"][i] += float(log_mean_exp(sets, dim=1).mean(0).sum())
                running = RunningWeights(log_w.shape[1], count, log_w.device)
                running.update(log_w[:count])
                sums["debiased"][i] += float(running.jackknife(1).sum())
                sums["debiased_twice"][i] += float(running.jackknife(2).sum())
    columns = {name: ("num_particles", total / inspection.num_data) for name, total in sums.items()}
    method = ImportanceSampling(most)
    return Convergence(
        xarray.Dataset(
            columns, coords={"num_particles": counts}, attrs={"seed": seed, "method": repr(method)}
        )
    )
