"""One training step of a model and a guide: captured once as a graph, replayed without Python's overhead."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import pyro.infer
import torch
from pyro.optim import PyroOptim
from torch import Tensor
from torch.utils import _pytree as pytree

from pyrovae.compilation.capture import Graph
from pyrovae.compilation.fused import FusedAdam, prefer_fused
from pyrovae.compilation.graphs import Engine
from pyrovae.compilation.native.update import NativeUpdate
from pyrovae.compilation.update import Update
from pyrovae.estimators import Estimator
from pyrovae.handlers import KLScale
from pyrovae.particles import check_right_most
from pyrovae.programs import Program, parameters_of

__all__ = ["SVI", "Report", "Step"]


_PATIENCE = 2  # times that an optimiser's settings may change before they stay outside the graph


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
    which later calls replay; see :class:`~pyrovae.compilation.graphs.Engine` for further shapes and for programs that
    cannot be captured. Losses, gradients and random draws are those of the eager programs. Validation of
    distributions happens on the batches that run eagerly and before a capture, not in the graph.

    Where the graph is compiled, the update of a plain ``Adam`` or ``AdamW`` is a kernel of our own, which forms the
    gradients of dense layers as it uses them; where it is recorded on a GPU, the update is part of it. Gradients then
    are not kept in ``parameter.grad``. Else the update is torch's fused kernel.

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
        like = next((p for p in self.parameters if p.is_floating_point()), torch.ones(()))
        self.beta = torch.ones((), dtype=like.dtype, device=like.device)
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
        self._stale_updates = 0

    def __call__(self, *batch: Tensor, beta: float = 1.0) -> Report:
        """One optimiser step on a batch; ``beta`` scales the KL term."""
        for parameter in self.parameters:
            parameter.grad = None
        graph = self._graph(batch, beta, stepping=True)
        if graph is None:
            report = self._eager(batch, beta)
            if self.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
            self.optimizer.step()
            return report
        report, gradients = _read(graph, batch)
        update: Update | NativeUpdate | None = graph.notes["update"]
        if update is not None:
            update.finish(gradients)
            return report
        for parameter, gradient in zip(graph.notes["parameters"], gradients, strict=True):
            parameter.grad = gradient
        self._update(graph, gradients)
        return report

    def gradients(self, *batch: Tensor, beta: float = 1.0) -> Report:
        """The loss is the negative bound averaged over the batch; adds its gradients to the parameters."""
        graph = self._graph(batch, beta, stepping=False)
        if graph is None:
            return self._eager(batch, beta)
        report, gradients = _read(graph, batch)
        for parameter, gradient in zip(graph.notes["parameters"], gradients, strict=True):
            if parameter.grad is None:
                parameter.grad = gradient.clone() if graph.static else gradient
            else:
                parameter.grad = parameter.grad + gradient
        return report

    def _update(self, graph: Graph, gradients: list[Tensor]) -> None:
        fused: FusedAdam | None = graph.notes.get("fused")
        if fused is not None and not fused.stale():
            return fused.step(gradients)
        self.optimizer.step()
        parameters = graph.notes["parameters"]
        fits = FusedAdam.fits([self.optimizer], parameters)
        graph.notes["fused"] = FusedAdam([self.optimizer], parameters) if fits else None
        return None

    def _graph(self, batch: tuple[Tensor, ...], beta: float, *, stepping: bool) -> Graph | None:
        """A graph from a batch to report and gradients, its beta set; None where the step has to be eager.

        When stepping, gradients are clipped, and a graph with an ``"update"`` in its notes takes the step too.
        """
        if not self.engine.enabled:
            return None
        self._set_beta(beta)
        scaled = beta != 1.0 or self._scaled_graphs
        clipped = stepping and self.clip_norm is not None
        trained = tuple(p.requires_grad for p in self.parameters)
        used: list[Tensor] = []
        updates: list[Update | NativeUpdate] = []

        def compute(*batch: Tensor) -> tuple[Tensor, ...]:
            report, loss = self._evaluate(self._arguments(batch), scaled)
            wanted = [p for p in self.parameters if p.requires_grad]
            found = torch.autograd.grad(loss, wanted, allow_unused=True)
            pairs = [(p, _like(g, p)) for p, g in zip(wanted, found, strict=True) if g is not None]
            used[:] = [p for p, _ in pairs]
            gradients = [g for _, g in pairs]
            return (*report, *(_clipped(gradients, self.clip_norm) if clipped else gradients))

        def whole(graph: Graph) -> Callable[..., tuple[Tensor, ...]] | None:
            if not stepping or self._stale_updates > _PATIENCE:
                return None
            return _with_update(
                compute, graph, len(Report._fields), [self.optimizer], used, updates
            )

        def rehearse(*batch: Tensor) -> None:
            self._evaluate(self._arguments(batch), scaled)

        name = scaled, stepping, clipped, trained
        graph = self.engine.graph(compute, batch, name=name, rehearse=rehearse, whole=whole)
        if graph is None:
            return None
        graph.notes.setdefault("parameters", used)
        self._scaled_graphs = scaled
        if not _holds(graph, updates):
            self._stale_updates += 1
            self.engine.clear()
            return self._graph(batch, beta, stepping=stepping)
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
        check_right_most(particles, arguments)
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


def _read(graph: Graph, batch: tuple[Tensor, ...]) -> tuple[Report, list[Tensor]]:
    """Run a graph; report and gradients, the former in memory of its own."""
    bound, reconstruction, kl, *gradients = graph(*batch)
    if graph.static:
        bound, reconstruction, kl = torch.stack((bound, reconstruction, kl)).unbind()
    return Report(bound, reconstruction, kl), gradients


def _with_update(
    compute: Callable[..., tuple[Tensor, ...]],
    graph: Graph,
    heads: int,
    optimizers: Sequence[torch.optim.Optimizer],
    parameters: Sequence[Tensor],
    made: list[Update | NativeUpdate],
) -> Callable[..., tuple[Tensor, ...]] | None:
    """Add the optimisers' update to a step whose graph ends in gradients, after ``heads`` other results.

    On CPU a kernel takes the step after the graph, which is changed to suit it; elsewhere the update becomes part
    of what is returned, to be captured instead.
    """
    if NativeUpdate.fits(optimizers, parameters):
        native = NativeUpdate(optimizers, parameters)
        native.factor(graph, heads)
        made.append(native)
        return None
    if not Update.fits(optimizers, parameters):
        return None
    update = Update(optimizers, parameters)
    made.append(update)

    def step(*inputs: Tensor) -> tuple[Tensor, ...]:
        results = compute(*inputs)
        update.apply(results[heads:])
        return results[:heads]

    return step


def _holds(graph: Graph, made: list[Update | NativeUpdate]) -> bool:
    """Whether the update that goes with a graph, if one does, still is its optimiser's; settings are taken over."""
    update: Update | NativeUpdate | None = graph.notes.setdefault(
        "update", made[0] if made else None
    )
    return update is None or update.ready()


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


class SVI(pyro.infer.SVI):
    """Drop-in for :class:`pyro.infer.SVI` whose step is captured as one graph.

    As there, :meth:`step` minimises the loss summed over the data, subsampling scale included, by a Pyro
    optimiser, and returns it as a number. Every parameter that the programs meet at the first step is trained,
    whether it lives in modules or in Pyro's store. The updates of ``pyro.optim.Adam`` and ``AdamW``, on their
    own state, go with the graph as in :class:`Step`.

    Args:
        model, guide: Pyro programs.
        optim: A :class:`pyro.optim.PyroOptim`.
        loss: One of :mod:`pyrovae.estimators`; a stock Pyro ELBO runs eagerly, since it reads values on the
            host at every step.
        compile, steps, capture: As for :class:`Step`.
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        optim: PyroOptim,
        loss: pyro.infer.ELBO,
        *,
        capture: bool = True,
        compile: bool | Literal["auto"] = "auto",
        steps: int | None = None,
    ):
        super().__init__(model, guide, optim, loss)
        self.estimator = loss
        self.engine = Engine(model, guide, loss, enabled=capture, compile=compile, steps=steps)
        if capture and not isinstance(loss, Estimator):
            self.engine.stop(
                f"{type(loss).__name__} reads values on the host; use pyrovae.estimators instead"
            )
        self._parameters: list[Tensor] | None = None
        self._stale_updates = 0

    def step(self, *args: Any, **kwargs: Any) -> float:
        """One optimiser step on the arguments of both programs; returns the loss."""
        if self._parameters is None and self.engine.enabled:
            self._parameters = parameters_of(self.model, self.guide, *args, **kwargs)
        graph, inputs = self._graph(True, args, kwargs)
        if graph is None:
            return super().step(*args, **kwargs)  # type: ignore[return-value]
        loss, *gradients = graph(*inputs)
        update: Update | NativeUpdate | None = graph.notes["update"]
        if update is not None:
            update.finish(gradients)
            return loss.item()
        parameters = graph.notes["parameters"]
        fused: FusedAdam | None = graph.notes.get("fused")
        if fused is not None and not fused.stale():
            fused.step(gradients)
            return loss.item()
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optim(parameters)
        for parameter in parameters:
            parameter.grad = None
        graph.notes["fused"] = self._fused(parameters)
        return loss.item()

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> float:
        """The loss on the arguments of both programs, without a step."""
        graph, inputs = self._graph(False, args, kwargs)
        if graph is None:
            return super().evaluate_loss(*args, **kwargs)  # type: ignore[return-value]
        return graph(*inputs)[0].item()

    def _optimizers(self, parameters: list[Tensor]) -> list[torch.optim.Optimizer]:
        """Torch's optimisers of the parameters; none where gradients are clipped one by one."""
        if any(p not in self.optim.optim_objs for p in parameters):
            for parameter in parameters:
                parameter.grad = None
            self.optim(parameters)  # without gradients: makes optimisers, and takes no step
        if any(self.optim.grad_clip.get(p) is not None for p in parameters):
            return []
        held = [self.optim.optim_objs[p] for p in parameters]
        return [getattr(optimizer, "optimizer", optimizer) for optimizer in held]

    def _fused(self, parameters: list[Tensor]) -> FusedAdam | None:
        optimizers = self._optimizers(parameters)
        fits = optimizers and FusedAdam.fits(optimizers, parameters)
        return FusedAdam(optimizers, parameters) if fits else None

    def _graph(
        self, stepping: bool, args: tuple, kwargs: dict
    ) -> tuple[Graph | None, list[Tensor]]:
        """A graph from the tensors among the arguments to loss and gradients; other arguments are frozen."""
        if not self.engine.enabled:
            return None, []
        leaves, tree = pytree.tree_flatten((args, kwargs))
        inputs = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        fixed = tuple(None if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        try:
            name = hash((stepping, fixed, tree)), stepping, fixed, tree
        except TypeError:
            self.engine.stop("an argument is neither a tensor nor hashable")
            return None, []
        wanted = [p for p in self._parameters or [] if p.requires_grad]
        used: list[Tensor] = []
        updates: list[Update | NativeUpdate] = []
        estimator: Any = self.estimator

        def loss_of(*inputs: Tensor) -> Tensor:
            given = iter(inputs)
            filled = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            args, kwargs = pytree.tree_unflatten(filled, tree)
            return estimator.differentiable_loss(self.model, self.guide, *args, **kwargs)

        def compute(*inputs: Tensor) -> tuple[Tensor, ...]:
            loss = loss_of(*inputs)
            if not stepping:
                return (loss.detach(),)
            found = torch.autograd.grad(loss, wanted, allow_unused=True)
            pairs = [(p, _like(g, p)) for p, g in zip(wanted, found, strict=True) if g is not None]
            used[:] = [p for p, _ in pairs]
            return loss.detach(), *(g for _, g in pairs)

        def whole(graph: Graph) -> Callable[..., tuple[Tensor, ...]] | None:
            optimizers = (
                self._optimizers(used) if stepping and self._stale_updates <= _PATIENCE else []
            )
            return (
                _with_update(compute, graph, 1, optimizers, used, updates) if optimizers else None
            )

        graph = self.engine.graph(compute, inputs, name=name, rehearse=loss_of, whole=whole)
        if graph is None:
            return None, inputs
        graph.notes.setdefault("parameters", used)
        if not _holds(graph, updates):
            self._stale_updates += 1
            self.engine.clear()
            return self._graph(stepping, args, kwargs)
        return graph, inputs
