"""One training step of a model and a guide."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pyro.infer
import torch
from torch import Tensor

from pyrovae.estimators import Estimator
from pyrovae.handlers import KLScale
from pyrovae.programs import parameters_of

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
        self.model, self.guide = model, guide
        self.estimator, self.optimizer, self.parameters = estimator, optimizer, list(parameters)
        self.clip_norm = clip_norm
        self.beta = torch.ones((), device=self.parameters[0].device if self.parameters else None)
        # One factor object for both programs, so that its value can change between steps.
        self.scaled = KLScale(self.beta)(model), KLScale(self.beta)(guide)

    def __call__(self, *batch: Tensor, beta: float = 1.0) -> Report:
        """One optimiser step on a batch; ``beta`` scales the KL term."""
        self.optimizer.zero_grad(set_to_none=True)
        report = self.gradients(*batch, beta=beta)
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()
        return report

    def gradients(self, *batch: Tensor, beta: float = 1.0) -> Report:
        """The loss is the negative bound averaged over the batch; adds its gradients to the parameters."""
        model, guide = (self.model, self.guide) if beta == 1.0 else self.scaled
        self.beta.fill_(beta)
        size = batch[0].shape[0]
        if not isinstance(self.estimator, Estimator):
            return _stock_gradients(self.estimator, model, guide, batch, size)
        particles = self.estimator.particles(model, guide, *batch)
        terms = self.estimator.terms(particles)
        loss = self.estimator.loss_of(terms) / size
        loss.backward()
        with torch.no_grad():
            return Report(
                terms.bound.sum().detach(),
                particles.log_likelihood.mean(0).sum().detach(),
                self.estimator.kl(particles).sum().detach(),
            )


def _stock_gradients(
    elbo: pyro.infer.ELBO, model: Program, guide: Program, batch: tuple[Tensor, ...], size: int
) -> Report:
    """As :meth:`Step.gradients`, by an ELBO that is not ours."""
    if hasattr(elbo, "differentiable_loss"):
        loss = elbo.differentiable_loss(model, guide, *batch)  # type: ignore[attr-defined]
        (loss / size).backward()
        value = loss.detach()
    else:
        value = torch.as_tensor(elbo.loss_and_grads(model, guide, *batch))  # type: ignore[attr-defined]
        for parameter in parameters_of(model, guide, *batch):
            if parameter.grad is not None:
                parameter.grad /= size
    unknown = torch.full_like(value, float("nan"))
    return Report(-value, unknown, unknown)
