"""One training step of a model and a guide: captured once as a graph, replayed without Python's overhead."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import pyro.infer
import torch
from torch import Tensor

from pyrovae.capture import Graph
from pyrovae.engine import Engine
from pyrovae.estimators import Estimator
from pyrovae.fused import FusedAdam, prefer_fused
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

    The first call captures the whole computation of bound and gradients as one graph (a fraction of a second),
    which later calls replay; see :class:`~pyrovae.engine.Engine` for further shapes and for programs that
    cannot be captured. Losses, gradients and random draws are those of the eager programs. Validation of
    distributions happens on the batches that run eagerly and before a capture, not in the graph.

    Nothing waits for the device: reports are tensors, to be read when needed.

    Args:
        model, guide: Pyro programs.
        estimator: One of ours, or a stock Pyro ELBO (whose reconstruction and KL are not known: NaN, and
            which runs eagerly).
        optimizer: A torch optimiser over the parameters. Plain ``Adam``, ``AdamW`` and ``SGD`` are switched
            to torch's fused kernel.
        parameters: What the optimiser holds.
        clip_norm: Largest norm of all gradients together.
        transform: From a batch to the programs' arguments, captured with them: a new binarisation of each
            batch, or rows of data that live on the device by index.
        capture: False runs every step eagerly.
        compile: Whether Inductor compiles the graph: True, False, or ``"auto"`` where ``steps`` runs pay for
            it and a compiler is at hand.
        steps: How many steps to expect, if known.

    Attributes:
        engine: Keeps the graphs; ``engine.reason`` says why steps run eagerly, if they do.
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
        transform: Callable[..., Any] | None = None,
        capture: bool = True,
        compile: bool | Literal["auto"] = "auto",
        steps: int | None = None,
    ):
        self.model, self.guide = model, guide
        self.estimator, self.optimizer, self.parameters = estimator, optimizer, list(parameters)
        self.clip_norm, self.transform = clip_norm, transform
        self.beta = torch.ones((), device=self.parameters[0].device if self.parameters else None)
        # One factor object for both programs, so that its value can change between steps.
        self.scaled = KLScale(self.beta)(model), KLScale(self.beta)(guide)
        self.engine = Engine(
            model,
            guide,
            estimator,
            *([transform] if transform else []),
            enabled=capture and isinstance(estimator, Estimator),
            compile=compile,
            steps=steps,
        )
        if capture and not self.engine.enabled:
            self.engine.reason = f"{type(estimator).__name__} is not one of pyrovae.estimators"
        prefer_fused(optimizer)
        self._beta = 1.0
        # Once the scaled programs are captured they also serve beta = 1, exactly.
        self._scaled_graphs = False

    def __call__(self, *batch: Tensor, beta: float = 1.0) -> Report:
        """One optimiser step on a batch; ``beta`` scales the KL term."""
        for parameter in self.parameters:
            parameter.grad = None
        graph = self._graph(batch, beta, clipped=self.clip_norm is not None)
        if graph is None:
            report = self._eager(batch, beta)
            if self.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
            self.optimizer.step()
            return report
        bound, reconstruction, kl, *gradients = graph(*batch)
        for parameter, gradient in zip(graph.notes["parameters"], gradients, strict=True):
            parameter.grad = gradient
        self._update(graph, gradients)
        return Report(bound, reconstruction, kl)

    def gradients(self, *batch: Tensor, beta: float = 1.0) -> Report:
        """The loss is the negative bound averaged over the batch; adds its gradients to the parameters."""
        graph = self._graph(batch, beta, clipped=False)
        if graph is None:
            return self._eager(batch, beta)
        bound, reconstruction, kl, *gradients = graph(*batch)
        for parameter, gradient in zip(graph.notes["parameters"], gradients, strict=True):
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return Report(bound, reconstruction, kl)

    def _update(self, graph: Graph, gradients: list[Tensor]) -> None:
        fused: FusedAdam | None = graph.notes.get("fused")
        if fused is not None and not fused.stale():
            return fused.step(gradients)
        self.optimizer.step()
        parameters = graph.notes["parameters"]
        fits = FusedAdam.fits(self.optimizer, parameters)
        graph.notes["fused"] = FusedAdam(self.optimizer, parameters) if fits else None
        return None

    def _graph(self, batch: tuple[Tensor, ...], beta: float, *, clipped: bool) -> Graph | None:
        """A graph from a batch to report and gradients, its beta set; None where the step has to be eager."""
        if not self.engine.enabled:
            return None
        self._set_beta(beta)
        scaled = beta != 1.0 or self._scaled_graphs
        trained = tuple(p.requires_grad for p in self.parameters)
        used: list[Tensor] = []

        def compute(*batch: Tensor) -> tuple[Tensor, ...]:
            report, loss = self._evaluate(self._arguments(batch), scaled)
            wanted = [p for p in self.parameters if p.requires_grad]
            found = torch.autograd.grad(loss, wanted, allow_unused=True)
            pairs = [(p, _like(g, p)) for p, g in zip(wanted, found, strict=True) if g is not None]
            used[:] = [p for p, _ in pairs]
            gradients = [g for _, g in pairs]
            return (*report, *(_clipped(gradients, self.clip_norm) if clipped else gradients))

        def rehearse(*batch: Tensor) -> None:
            self._evaluate(self._arguments(batch), scaled)

        graph = self.engine.graph(compute, batch, name=(scaled, clipped, trained), rehearse=rehearse)
        if graph is not None:
            graph.notes.setdefault("parameters", used)
            self._scaled_graphs = scaled
        return graph

    def _set_beta(self, beta: float) -> None:
        if beta != self._beta:
            self.beta.fill_(beta)
            self._beta = beta

    def _arguments(self, batch: tuple[Tensor, ...]) -> tuple[Any, ...]:
        if self.transform is None:
            return batch
        arguments = self.transform(*batch)
        return tuple(arguments) if isinstance(arguments, list | tuple) else (arguments,)

    def _evaluate(self, arguments: tuple[Any, ...], scaled: bool) -> tuple[Report, Tensor]:
        """Report and loss, the one definition of both for captured and eager steps."""
        model, guide = self.scaled if scaled else (self.model, self.guide)
        estimator: Any = self.estimator
        particles = estimator.particles(model, guide, *arguments)
        terms = estimator.terms(particles)
        loss = estimator.loss_of(terms) / particles.num_data
        with torch.no_grad():
            report = Report(
                terms.bound.detach().sum(),
                particles.log_likelihood.detach().mean(0).sum(),
                estimator.kl(particles).detach().sum(),
            )
        return report, loss

    def _eager(self, batch: tuple[Tensor, ...], beta: float) -> Report:
        self._set_beta(beta)
        scaled = beta != 1.0
        arguments = self._arguments(batch)
        if not isinstance(self.estimator, Estimator):
            model, guide = self.scaled if scaled else (self.model, self.guide)
            return _stock_gradients(self.estimator, model, guide, arguments, arguments[0].shape[0])
        report, loss = self._evaluate(arguments, scaled)
        loss.backward()
        return report


def _like(gradient: Tensor, parameter: Tensor) -> Tensor:
    """The gradient in the parameter's memory layout, as the fused kernels want it."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def _clipped(gradients: list[Tensor], norm: float | None) -> list[Tensor]:
    """As :func:`torch.nn.utils.clip_grad_norm_`, without changing anything in place."""
    assert norm is not None
    total = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
    factor = (norm / (total + 1e-6)).clamp(max=1.0)
    return [g * factor for g in gradients]


def _stock_gradients(
    elbo: pyro.infer.ELBO, model: Program, guide: Program, batch: tuple[Any, ...], size: int
) -> Report:
    """Gradients by an ELBO that is not ours."""
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
