"""The contract of an evidence method: a problem in, an estimate for each datum out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.evidence.problem import Problem
from pyrovae.weights import RunningWeights


@dataclass
class Estimate:
    """What a method found: a dictionary of ``(B,)`` columns, and notes about the run as a whole.

    Every estimate has ``log_marginal``, ``standard_error``, ``ess``, ``pareto_k``, ``num_particles``,
    ``debiased`` and ``unseen``; methods add their own.
    """

    columns: dict[str, np.ndarray]
    notes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_weights(cls, running: RunningWeights, **more: Tensor) -> "Estimate":
        """The columns that follow from importance weights."""
        pareto_k, unseen = running.pareto_tail()
        found = {
            "log_marginal": running.log_mean_exp,
            "standard_error": running.standard_error,
            "ess": running.ess,
            "pareto_k": pareto_k,
            "num_particles": running.count,
            "debiased": running.jackknife(1),
            "debiased_twice": running.jackknife(2),
            "unseen": unseen,
            **more,
        }
        return cls({name: column.detach().cpu().numpy() for name, column in found.items()})

    @classmethod
    def join(cls, parts: "Sequence[Estimate]") -> "Estimate":
        """The estimates of consecutive data as one."""
        columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
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
            total=problem.num_data, desc=type(self).__name__, unit="datum", disable=not problem.progress
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
