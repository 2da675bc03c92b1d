"""The contract of an evidence method: a sampler and a plan in, an estimate for each datum out."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.declare import Declared
from pyrovae.evidence.inspection import Inspection, in_pieces
from pyrovae.evidence.plan import Plan
from pyrovae.evidence.sampler import Sampler
from pyrovae.weights import RunningWeights

__all__ = ["Estimate", "Method", "check_count", "estimate_pieces"]


@dataclass
class Estimate:
    """What a method found: ``(B,)`` columns by name, and notes about the run as a whole.

    Every estimate has the columns ``log_marginal``, ``standard_error``, ``ess``, ``pareto_k``,
    ``num_particles``, ``debiased``, ``debiased_twice`` and ``unseen``. Methods add their own.
    ``batch_log_mean`` alone is ``(B, 8)``.
    """

    columns: dict[str, np.ndarray]
    notes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_columns(cls, columns: dict[str, Tensor]) -> "Estimate":
        """From tensors on any device."""
        return cls({name: column.detach().cpu().numpy() for name, column in columns.items()})

    @classmethod
    def of_weights(cls, running: RunningWeights, **more: Tensor) -> "Estimate":
        """The columns that follow from importance weights, and ``more``."""
        pareto_k, unseen = running.pareto_tail(margin=2.0, horizon=100)
        return cls.of_columns(
            {
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
        )

    @classmethod
    def exact(cls, sampler: Sampler, plan: Plan) -> "Estimate":
        """log p(x) itself, where every latent site is summed out. Its error is
        the rounding error.
        """

        def one_weight(some: Sampler) -> Estimate:
            found = some.log_weights(1)[0]
            log_p, eps = found.double(), torch.finfo(found.dtype).eps
            one, zero = torch.ones_like(log_p), torch.zeros_like(log_p)
            return cls.of_columns(
                {
                    "log_marginal": log_p,
                    "standard_error": eps * log_p.abs().clamp_min(1.0),
                    "ess": one,
                    "pareto_k": torch.full_like(log_p, -math.inf),
                    "num_particles": one.long(),
                    "debiased": log_p,
                    "debiased_twice": log_p,
                    "unseen": zero,
                }
            )

        return estimate_pieces(sampler, plan, one_weight, size=plan.cut(1)[0])

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


def estimate_pieces(
    sampler: Sampler,
    plan: Plan,
    work: Callable[..., Estimate],
    values: dict[str, Tensor] | None = None,
    *,
    size: int | None = None,
    label: str = "",
) -> Estimate:
    """Apply ``work`` to the data piece by piece, and join the estimates.

    Args:
        sampler: All data.
        plan: Says how many data are one piece, unless ``size`` does.
        work: From the sampler of a piece, and its ``values`` where there are any, to an estimate.
        values: By site, ``(B, *event)`` values.
        label: Name of the progress bar.
    """

    def evaluate(start: int, stop: int) -> Estimate:
        found = []
        for piece in in_pieces(stop - start, length, progress=progress, label=label):
            index = start + piece
            given = [] if values is None else [{name: v[index] for name, v in values.items()}]
            found.append(work(sampler.select(index), *given))
        return Estimate.join(found)

    length, num_data = size or plan.num_data, len(sampler)
    progress = plan.progress and plan.parts is None
    if plan.parts is None:
        return evaluate(0, num_data)
    return Estimate.join(plan.parts.estimate(num_data, length, evaluate))


class Method(Declared, ABC):
    """Base class of the methods. A new one writes :meth:`plan`, :meth:`run` and :meth:`settings`.

    ``bound`` is the side of log p(x) on which the estimates lie in expectation: ``"lower"`` or
    ``"upper"``.
    """

    bound = "lower"

    def evaluate(self, inspection: Inspection, parts: Any = None) -> Estimate:
        """Plan and :meth:`run`. The estimate's notes tell what became of discrete sites.

        Args:
            inspection: Programs and data.
            parts: Keeps what is finished (:class:`pyrovae.evidence.parts.Parts`).
        """
        plan = replace(self.plan(inspection), parts=parts)
        estimate = self.run(inspection.sampler(plan.summed, plan.scorer), plan)
        return Estimate(estimate.columns, plan.notes | estimate.notes)

    @abstractmethod
    def plan(self, inspection: Inspection) -> Plan:
        """What this method needs of :func:`~pyrovae.evidence.plan.plan`."""

    @abstractmethod
    def run(self, sampler: Sampler, plan: Plan) -> Estimate:
        """Estimates for all data of the sampler, inside
        :func:`~pyrovae.evidence.inspection.evaluating`.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Names and values that identify the run and that a file can hold."""


def check_count(name: str, value: Any, least: int = 1) -> int:
    """The value, if it is an integer of at least ``least``.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is smaller.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, found {value!r}.")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, found {value}.")
    return int(value)
