"""The settings of a fit, or a refusal that says what was expected."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pyro.infer
import torch
from torch import Tensor

from pyrovae.declare import is_count
from pyrovae.estimators import Estimator
from pyrovae.schedules import Constant, Schedule

__all__ = ["beta_schedule", "check_clips", "check_counts", "check_schedules", "made_by"]


def check_counts(**counts: Any) -> None:
    """Raise a ValueError unless each is a positive integer."""
    for name, value in counts.items():
        if not is_count(value):
            raise ValueError(f"{name} must be a positive integer, found {value!r}.")


def check_clips(**clips: float | None) -> None:
    """Raise a ValueError unless each is positive or None."""
    for name, most in clips.items():
        if most is not None and not most > 0:
            raise ValueError(f"{name} must be positive, found {most}.")


def check_schedules(**values: Any) -> None:
    """Raise an error unless each is a schedule or a finite number, of which only beta may be 0."""
    for name, value in values.items():
        if isinstance(value, Schedule):
            continue
        if not isinstance(value, int | float | Tensor):
            raise TypeError(f"{name} must be a number or a schedule, found {value!r}.")
        if not math.isfinite(value) or value < 0 or (value == 0 and name != "beta"):
            least = "not negative" if name == "beta" else "positive"
            raise ValueError(f"{name} must be finite and {least}, found {value}.")


def beta_schedule(beta: float | Schedule, estimator: Any) -> Schedule:
    """A schedule of beta that is this run's alone, once the estimator is known to serve it."""
    if not isinstance(estimator, pyro.infer.ELBO):
        raise TypeError(
            "estimator must be an instance of a pyrovae.estimators class or a Pyro ELBO, "
            f"found {estimator!r}."
        )
    # A copy: a schedule that listens to this run is as given for the next one.
    schedule = copy.deepcopy(beta) if isinstance(beta, Schedule) else Constant(beta)
    if schedule.feedback and not isinstance(estimator, Estimator):
        raise ValueError(
            f"{schedule!r} listens to the reconstruction and the KL, which "
            f"{type(estimator).__name__} does not report. Use one of pyrovae.estimators, or a beta "
            "that is a function of the step."
        )
    weighs = pyro.infer.RenyiELBO, pyro.infer.ReweightedWakeSleep, pyro.infer.TraceTailAdaptive_ELBO
    if isinstance(estimator, weighs) and repr(schedule) != repr(Constant(1.0)):
        raise ValueError(
            f"{type(estimator).__name__} weighs particles, and under beta the weighted bound is "
            "none of log p(x). Use beta=1, or an ELBO without weights."
        )
    return schedule


def made_by(make: Callable[[list[Tensor]], Any], parameters: list[Tensor]) -> torch.optim.Optimizer:
    """The optimiser of these parameters.

    Raises:
        TypeError: If ``make`` makes none, as an optimiser does that is given in its place.
    """
    optimizer = make(parameters) if callable(make) else None
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            "optimizer must be a function that makes a torch optimiser of a list of parameters, "
            "such as torch.optim.AdamW or lambda parameters: torch.optim.SGD(parameters, lr=0.1), "
            f"found {type(make).__name__}."
        )
    return optimizer
