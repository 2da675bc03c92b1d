"""One training step of a model and a guide."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pyro.infer
import torch
from torch import Tensor

from pyrovae.estimators import Estimator
from pyrovae.handlers import KLScale

__all__ = ["Report", "Step"]

Program = Callable[..., Any]


class Report(NamedTuple):
    """What one step saw, in nats summed over the batch: scalars that stay on the device, detached."""

    bound: Tensor
    """The estimator's reported bound, under the step's beta."""
    reconstruction: Tensor
    """Mean over particles of log p(x | z)."""
    kl: Tensor
    """The KL term, without beta."""


class Step:
    """Guide, replayed model, estimator, gradients and optimiser, as one call on a batch.

    Args:
        model, guide: Pyro programs.
        estimator: One of ours, or a stock Pyro ELBO (whose reconstruction and KL are not known: NaN).
        optimizer: A torch optimiser over the parameters.
        parameters: What the optimiser holds.
        clip_norm: Largest norm of all gradients together.
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        estimator: pyro.infer.ELBO,
        optimizer: torch.optim.Optimizer,
        parameters: Sequence[Tensor],
        *,
        clip_norm: float | None = None,
    ):
        self.scale = KLScale(torch.ones(()))
        self.plain = model, guide
        self.scaled = self.scale(model), KLScale(self.scale.beta)(guide)
        self.estimator, self.optimizer, self.parameters = estimator, optimizer, list(parameters)
        self.clip_norm = clip_norm

    def __call__(self, *batch: Tensor, beta: float = 1.0) -> Report:
        """One optimiser step on a batch; ``beta`` scales the KL term."""
        raise NotImplementedError
