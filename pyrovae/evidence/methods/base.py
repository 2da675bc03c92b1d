"""The contract of an evidence method: a problem in, an estimate for each datum out."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.evidence.problem import Problem, finite_log_weights
from pyrovae.evidence.summing import Enumerate
from pyrovae.weights import RunningWeights


@dataclass
class Estimate:
    """What a method found: a dictionary of ``(B,)`` columns, and notes about the run as a whole.

    Every estimate has ``log_marginal``, ``standard_error``, ``ess``, ``pareto_k``, ``num_particles``,
    ``debiased`` and ``unseen``; methods add their own. ``batch_log_mean`` alone is ``(B, 8)``.
    """

    columns: dict[str, np.ndarray]
    notes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_weights(cls, running: RunningWeights, **more: Tensor) -> "Estimate":
        """The columns that follow from importance weights."""
        pareto_k, unseen = running.pareto_tail(margin=2.0, horizon=100)
        found = {
            "log_marginal": running.log_mean_exp,
            "standard_error": running.standard_error,
            "ess": running.ess,
            "pareto_k": pareto_k,
            "num_particles": running.count,
            "debiased": running.jackknife(1),
            "debiased_twice": running.jackknife(2),
            "unseen": unseen,
            "degrees_of_freedom": running.degrees_of_freedom,
            "log_weight_variance": running.log_weight_variance,
            "batch_log_mean": running.batch_log_mean_exp,
            "resolution": running.resolution * running.log_mean_exp.abs().clamp_min(1.0),
            **more,
        }
        return cls({name: column.detach().cpu().numpy() for name, column in found.items()})

    @classmethod
    def exact(cls, problem: Problem) -> "Estimate":
        """log p(x) itself, where every latent site is summed out; the error is that of rounding."""
        num_data, _ = problem.pieces(1)
        parts = []
        for first in range(0, problem.num_data, num_data):
            index = np.arange(first, min(first + num_data, problem.num_data))
            found = finite_log_weights(problem.encode(index).draw(1).log_weights)[0]
            log_p, eps = found.double(), torch.finfo(found.dtype).eps
            one, zero = torch.ones_like(log_p), torch.zeros_like(log_p)
            columns = {
                "log_marginal": log_p,
                "standard_error": eps * log_p.abs().clamp_min(1.0),
                "ess": one,
                "pareto_k": torch.full_like(log_p, -math.inf),
                "num_particles": one.long(),
                "debiased": log_p,
                "debiased_twice": log_p,
                "unseen": zero,
            }
            parts.append(cls({name: column.cpu().numpy() for name, column in columns.items()}))
        return cls.join(parts)

    @classmethod
    def join(cls, parts: "Sequence[Estimate]") -> "Estimate":
        """The estimates of consecutive data as one."""
        columns = {
            name: np.concatenate([part.columns[name] for part in parts])
            for name in parts[0].columns
        }
        notes: dict[str, Any] = {}
        for part in parts:
            notes |= part.notes
        return cls(columns, notes)


class Method(ABC):
    """Base of the methods: a new one writes :meth:`run` and :meth:`settings`.

    ``bound`` says on which side of log p(x) its estimates lie in expectation: ``"lower"`` or ``"upper"``.
    """

    bound = "lower"
    needs_density = True
    """Whether it draws from the guide and weighs by its density; AIS from the prior does not."""
    enumerate: Enumerate = False
    """Whether the particles that :meth:`run` meets have their discrete sites summed out."""
    num_draws = 1
    """The most particles for a datum."""

    def evaluate(self, problem: Problem) -> "Estimate":
        """Look at the problem, :meth:`run`, and note what became of discrete sites."""
        problem.inspect(
            density=self.needs_density, enumerate=self.enumerate, num_draws=self.num_draws
        )
        estimate = self.run(problem)
        return Estimate(estimate.columns, problem.notes | estimate.notes)

    @abstractmethod
    def run(self, problem: Problem) -> Estimate:
        """Estimates for all data of the problem, inside :meth:`Problem.session`."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What identifies the run: names and values that a file can hold."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.settings().items())})"

    def bar(self, problem: Problem) -> Any:
        """A progress bar over the data, silent unless asked for."""
        from tqdm import tqdm

        return tqdm(
            total=problem.num_data,
            desc=type(self).__name__,
            unit="datum",
            disable=not problem.progress,
        )


def check_count(name: str, value: Any, least: int = 1) -> int:
    """The value, once it is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, found {value!r}.")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, found {value}.")
    return int(value)


def on(problem: Problem, values: Any) -> Tensor:
    """Numbers as a tensor on the problem's device."""
    return torch.as_tensor(values, device=problem.device)
