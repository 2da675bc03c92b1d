"""Bidirectional Monte Carlo: log p(x) of simulated data, from below and from above."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.evidence.methods.ais import AIS
from pyrovae.evidence.methods.base import Estimate, Method, check_count
from pyrovae.evidence.problem import prepare
from pyrovae.evidence.result import Evidence
from pyrovae.particles import simulate
from pyrovae.programs import Program, evaluation_mode, modules_of

__all__ = ["Sandwich", "bdmc"]


class Sandwich:
    """Two estimates of log p(x) for the same simulated data, in nats per datum.

    Attributes:
        below, above: Evidence whose estimates lie below and above the truth in expectation. Errors of the latter count
            the exact draw, which its particles share, by the gap's spread over data.
        data: The simulated data.
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
        """``datum``: upper less lower. Its mean bounds the mean error of either, up to chance."""
        return self.upper - self.lower

    def interval(self, prob: float = 0.95) -> tuple[float, float]:
        """Ends between which the mean of log p(x) over these very data lies, at least as often as ``prob`` says.

        They are the outer ends of both sides' intervals, :meth:`Evidence.interval`.
        """
        return self.below.interval(prob)[0], self.above.interval(prob)[1]

    def gap_error(self) -> float:
        """Standard error of the mean gap over simulated data."""
        return (
            float(self.gap.std(ddof=1)) / math.sqrt(len(self.below))
            if len(self.below) > 1
            else math.inf
        )

    def __len__(self) -> int:
        return len(self.below)

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.below.settings.items())
        return (
            f"Sandwich of {len(self)} simulated data by {self.below.method}({settings})\n"
            f"  {self.below.mean():.6g} <= log p(x) <= {self.above.mean():.6g} nats per datum, on average\n"
            f"  gap {float(self.gap.mean()):.3g} ± {self.gap_error():.2g}, largest {float(self.gap.max()):.3g}"
        )


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
    max_plate_nesting: int = 1,
    progress: bool = False,
) -> Sandwich:
    """How far a method's estimates are off, on data that the model itself draws.

    For data drawn from the model, the latent values that they came from are exact draws from the posterior. With
    them the method also runs backwards, which gives an upper bound in expectation; between both lies log p(x). What
    the gap says of held-out data depends on how alike they are to the model's.

    Args:
        model, guide: Pyro programs whose data plate is the right-most batch dimension.
        num_data: Data to simulate.
        method: :class:`AIS` (the default), or :class:`ImportanceSampling`.
        data: Arguments of the programs as in :func:`log_marginal`, of which the first ``num_data`` serve: observed ones
            for their shape, others (labels, covariates, masks) as they are. Not needed where the model belongs to a
            module that has ``sample(num_data)``, as a :class:`~pyrovae.VAE`.
        seed, memory_budget, device, max_plate_nesting, progress: As :func:`log_marginal`.

    Raises:
        TypeError: If the method is none, or has no reverse.
        ValueError: As :func:`log_marginal`; if the model observes something else than its arguments; if there are
            fewer data than ``num_data``.

    References:
        Sandwiching the Marginal Likelihood Using Bidirectional Monte Carlo (Grosse et al., 2015); On the Quantitative
        Analysis of Decoder-Based Generative Models (Wu et al., 2017).
    """
    num_data = check_count("num_data", num_data)
    method = AIS() if method is None else method
    if not isinstance(method, Method) or not hasattr(method, "run_reverse"):
        raise TypeError(f"bdmc takes AIS(...) or ImportanceSampling(...), found {method!r}.")
    if getattr(method, "target_standard_error", None) is not None:
        raise ValueError(
            "A sandwich needs the same effort on both sides: leave target_standard_error out."
        )
    settings: dict[str, Any] = {
        "seed": seed,
        "memory_budget": memory_budget,
        "device": device,
        "max_plate_nesting": max_plate_nesting,
        "progress": progress,
    }
    template = prepare(model, guide, _template(model, data, num_data), **settings)
    with template.session():
        torch.manual_seed(seed)
        drawn, latents = simulate(model, template.rows(slice(0, num_data)))
    problem = prepare(model, guide, drawn, **settings)
    with problem.session():
        below = method.evaluate(problem)
        above = method.run_reverse(problem, latents)  # type: ignore[attr-defined]
        above.notes |= problem.notes
    _count_exact_draw(below, above)
    lower, upper = (
        Evidence.of(estimate, method, problem, bound=bound)
        for estimate, bound in ((below, "lower"), (above, "upper"))
    )
    return Sandwich(lower, upper, drawn)


def _count_exact_draw(below: Estimate, above: Estimate) -> None:
    """Widen the errors of the upper side to the spread of the gap over data.

    All particles of a datum share one exact draw, so their own spread does not tell what another draw would have
    given; the gap's spread over data holds that, and what data differ by.
    """
    gap = above.columns["log_marginal"] - below.columns["log_marginal"]
    spread = gap.std(ddof=1) if len(gap) > 1 else math.inf
    above.columns["standard_error"] = np.maximum(above.columns["standard_error"], spread)


def _template(model: Program, data: Any, num_data: int) -> Any:
    if data is not None:
        rows = [
            np.shape(part)[0] if np.ndim(part) else 0
            for part in (data if isinstance(data, tuple) else (data,))
        ]
        if min(rows, default=0) < num_data:
            raise ValueError(
                f"{num_data} data are to be simulated, but the arguments given hold {rows} rows."
            )
        return data
    for module in modules_of(model):
        if callable(getattr(module, "sample", None)):
            with torch.random.fork_rng(), torch.no_grad(), evaluation_mode(model):
                return module.sample(num_data)  # type: ignore[operator]
    raise ValueError(
        "The shape of the model's data is not known. Pass data=..., arguments as for log_marginal: observed ones give "
        "their shape, others are used as they are."
    )
