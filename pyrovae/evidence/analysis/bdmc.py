"""Bidirectional Monte Carlo: log p(x) of simulated data, from below and from above."""

import math
from typing import Any

import numpy as np
from torch import Tensor

from pyrovae import plots
from pyrovae.declare import html_table
from pyrovae.evidence.analysis.simulated import simulate_data
from pyrovae.evidence.inspection import Inspection, inspect
from pyrovae.evidence.methods.ais import AIS
from pyrovae.evidence.methods.base import Estimate, Method, check_count
from pyrovae.evidence.result import Evidence
from pyrovae.programs import Program

__all__ = ["Sandwich", "bdmc"]


class Sandwich:
    """Two estimates of log p(x) for the same simulated data, in nats per datum.

    Attributes:
        below, above: Evidence whose estimates lie below and above the truth in expectation. All
            particles of a datum share one exact draw in the latter, so its errors are widened to
            the spread of the gap over data.
        data: The simulated data.

    References:
        - Sandwiching the Marginal Likelihood Using Bidirectional Monte Carlo (Grosse et al., 2015),
          `arXiv:1511.02543 <https://arxiv.org/abs/1511.02543>`_.
        - On the Quantitative Analysis of Decoder-Based Generative Models (Wu et al., 2017),
          `arXiv:1611.04273 <https://arxiv.org/abs/1611.04273>`_.

    Example:
        See :func:`bdmc`, which makes it.
    """

    def __init__(self, below: Evidence, above: Evidence, data: tuple[Tensor, ...]):
        self.below, self.above, self.data = below, above, data

    @property
    def lower(self) -> Any:
        """``datum``: estimates from below."""
        return self.below.log_marginal

    @property
    def upper(self) -> Any:
        """``datum``: estimates from above."""
        return self.above.log_marginal

    @property
    def gap(self) -> Any:
        """``datum``: upper minus lower. Its mean bounds the mean error of either side, up to
        chance.
        """
        return self.upper - self.lower

    def interval(self, prob: float = 0.95) -> tuple[float, float]:
        """An interval for the mean of log p(x) over these very data, which holds it with
        probability ``prob`` or more.

        Its ends are the outer ends of both sides' intervals, :meth:`Evidence.interval`.
        """
        return self.below.interval(prob)[0], self.above.interval(prob)[1]

    def gap_error(self) -> float:
        """Standard error of the mean gap over simulated data."""
        if len(self) < 2:
            return math.inf
        return float(self.gap.std(ddof=1)) / math.sqrt(len(self))

    def __len__(self) -> int:
        return len(self.below)

    def plot(self, axes: Any = None) -> Any:
        """The gap of each datum: :func:`pyrovae.plots.sandwich`."""
        return plots.sandwich(self, axes)

    def _rows(self) -> tuple[str, list[tuple[str, str]]]:
        """Title, and names with what is found."""
        settings = ", ".join(f"{name}={value!r}" for name, value in self.below.settings.items())
        bounds = f"{self.below.mean():.6g} <= log p(x) <= {self.above.mean():.6g}"
        gap = f"{float(self.gap.mean()):.3g} ± {self.gap_error():.2g}"
        return f"Sandwich of {len(self)} simulated data by {self.below.method}({settings})", [
            ("bounds", f"{bounds} nats per datum, on average"),
            ("gap", f"{gap}, largest {float(self.gap.max()):.3g}"),
        ]

    def __repr__(self) -> str:
        title, ((_, bounds), (name, gap)) = self._rows()
        return f"{title}\n  {bounds}\n  {name} {gap}"

    def _repr_html_(self) -> str:
        return html_table(*self._rows())


def bdmc(
    model: Program,
    guide: Program,
    *,
    num_data: int = 100,
    method: Method | None = None,
    data: Any = None,
    seed: int = 0,
    memory_budget: int | None = None,
    device: Any = None,
    max_plate_nesting: int | None = None,
    progress: bool = False,
) -> Sandwich:
    """Bound the error of a method from both sides, on data that the model itself draws.

    For simulated data, the latent values that they came from are exact draws from the posterior.
    With these the method also runs in reverse, which gives an upper bound in expectation, so log
    p(x) lies between both bounds. The gap tells about held-out data as far as these are like the
    model's data.

    Args:
        model, guide: Pyro programs whose data plate is the right-most batch dimension.
        num_data: Number of data to simulate.
        method: :class:`AIS` (the default), or :class:`ImportanceSampling`.
        data: Arguments of the programs, of which the first ``num_data`` are used. Observed ones
            only give their shape. Not needed where the model belongs to a module with
            ``sample(num_data)``, as a :class:`~pyrovae.VAE`.
        seed, memory_budget, device, max_plate_nesting, progress: As :func:`log_marginal`.

    Raises:
        TypeError: If the method cannot run in reverse.
        ValueError: As :func:`log_marginal`; if the model does not observe its arguments; if there
            are too few data.

    Examples:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian(shift=0.3)
        >>> method = pv.ImportanceSampling(200)
        >>> sandwich = pv.bdmc(oracle.model, oracle.guide, num_data=20, method=method)
        >>> low, high = sandwich.interval()
        >>> bool(low < oracle.log_prob(sandwich.data[0]).mean() < high)
        True
    """
    num_data = check_count("num_data", num_data)
    reversible = _check_reversible(AIS() if method is None else method)
    drawn, latents = simulate_data(model, guide, num_data, data, seed, device)
    inspection = inspect(
        model, guide, drawn, seed, memory_budget, device, max_plate_nesting, progress
    )
    with inspection.evaluating():
        below, above = _estimate_both(reversible, inspection, latents)
    lower = Evidence.of(below, reversible, inspection, bound="lower")
    return Sandwich(lower, Evidence.of(above, reversible, inspection, bound="upper"), drawn)


def _estimate_both(
    method: Any, inspection: Inspection, latents: dict[str, Tensor]
) -> tuple[Estimate, Estimate]:
    """The estimates of a method and of its reverse, by one plan."""
    plan = method.plan(inspection)
    sampler = inspection.sampler(plan.summed, plan.scorer)
    below, above = method.run(sampler, plan), method.run_reverse(sampler, plan, latents)
    for estimate in (below, above):
        estimate.notes |= plan.notes
    _count_exact_draw(below, above)
    return below, above


def _check_reversible(method: Any) -> Any:
    """The method, if it can run in reverse with the same effort."""
    if not isinstance(method, Method) or not hasattr(method, "run_reverse"):
        raise TypeError(f"bdmc takes AIS(...) or ImportanceSampling(...), found {method!r}.")
    if getattr(method, "target_standard_error", None) is not None:
        raise ValueError(
            "A sandwich needs the same effort on both sides: leave target_standard_error out."
        )
    return method


def _count_exact_draw(below: Estimate, above: Estimate) -> None:
    """Widen the errors of the upper side to the spread of the gap over data.

    All particles of a datum share one exact draw, so their spread does not show what another draw
    would have given. The spread of the gap over data includes that.
    """
    gap = above.columns["log_marginal"] - below.columns["log_marginal"]
    spread = gap.std(ddof=1) if len(gap) > 1 else math.inf
    above.columns["standard_error"] = np.maximum(above.columns["standard_error"], spread)
