"""What the steps of one epoch have seen so far, and the row that they make."""

from typing import Any

import torch
from torch import Tensor

from pyrovae.objective import Report

__all__ = ["Tally"]


class Tally:
    """Reports of the steps of an epoch.

    Args:
        random: Every random state before the epoch's first batch was drawn.

    Attributes:
        taken: Batches taken from the data, those of skipped steps too.
        skipped: Steps that changed nothing, since their loss or gradients were not finite.
        seconds: Time spent on the steps.
    """

    def __init__(self, random: dict[str, Any]):
        self.random = random
        self.reports: list[Report] = []
        self.betas: list[float] = []
        self.sizes: list[int] = []
        self.taken = self.skipped = 0
        self.checked = 0  # reports that have been looked at
        self.seconds = 0.0

    def add(self, report: Report, beta: float, size: int) -> None:
        """Note a step."""
        self.reports.append(report)
        self.betas.append(beta)
        self.sizes.append(size)
        self.taken += 1

    def skip(self) -> None:
        """Note a step that changed nothing: it is no part of the epoch's means."""
        self.skipped += 1
        self.taken += 1

    def means(self) -> dict[str, float]:
        """The epoch's columns of a row, in nats per datum."""
        bounds, reconstructions, kls = self._columns().T
        extra = torch.tensor(self.betas, dtype=torch.float64) - 1.0
        at_one = bounds + torch.where(extra == 0, 0.0, extra * kls)
        total = sum(self.sizes)
        return {
            "train_bound": (at_one.sum() / total).item(),
            "reconstruction": (reconstructions.sum() / total).item(),
            "kl": (kls.sum() / total).item(),
            "beta": self.betas[-1],
            "seconds": self.seconds,
            "skipped": self.skipped,
        }

    def latest(self) -> dict[str, float]:
        """The same of the last steps alone, to show while the epoch goes on."""
        recent = Tally({})
        for report, beta, size in list(zip(self.reports, self.betas, self.sizes, strict=True))[
            -50:
        ]:
            recent.add(report, beta, size)
        return recent.means() if recent.sizes else {}

    def _columns(self) -> Tensor:
        """``(steps, 3)``: bound, reconstruction, KL, each summed over a batch."""
        columns = [torch.stack(column).double().cpu() for column in zip(*self.reports, strict=True)]
        return torch.stack(columns, 1)

    def state_dict(self) -> dict[str, Any]:
        """All of it, as values that load without running code."""
        return {
            "random": self.random,
            "reports": self._columns() if self.reports else None,
            "betas": self.betas,
            "sizes": self.sizes,
            "counts": [self.taken, self.skipped],
            "seconds": self.seconds,
        }

    @classmethod
    def load(cls, state: dict[str, Any], device: torch.device) -> "Tally":
        """The tally of an earlier :meth:`state_dict`."""
        tally = cls(state["random"])
        if state["reports"] is not None:
            tally.reports = [Report(*row) for row in state["reports"].to(device)]
        tally.betas, tally.sizes = state["betas"], state["sizes"]
        (tally.taken, tally.skipped), tally.seconds = state["counts"], state["seconds"]
        tally.checked = len(tally.reports)
        return tally
