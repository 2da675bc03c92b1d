"""One step of training: gradients, update, report."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, NamedTuple

import pyro.infer
import torch
from pyro.infer.util import is_validation_enabled
from pyro.optim import PyroOptim
from torch import Tensor, nn

from pyrovae.compilation import Compiled, compile
from pyrovae.estimators import Estimator
from pyrovae.nets.precision import Bfloat16Networks
from pyrovae.objective import Evaluation, Objective, Report, objective
from pyrovae.optim import check_optimizer, flush_denormals, prefer_fused, update_for
from pyrovae.optim.adam import decompositions
from pyrovae.programs import (
    Program,
    is_stale,
    modules_of,
    stored_parameters,
    undisturbed,
)

__all__ = ["FLUSH_EVERY", "Networks", "Step", "compiled_of"]

FLUSH_EVERY = 50
"""Steps between looks at an optimiser's state for denormal numbers."""

Networks = Literal["full", "bfloat16"]

_PATIENCE = 2  # times that an optimiser's settings may change before its update leaves the graph


class _Taken(NamedTuple):
    """What a step gives: the report and the loss, without the gradients."""

    report: Report
    loss: Tensor


class Step:
    """Gradients, update and report of a model and a guide, as one call on a batch.

    The computation is captured as a graph at the first call with a batch of some shape, and
    replayed by later ones (:func:`pyrovae.compilation.compile`). The update of a plain ``Adam`` or
    ``AdamW`` is part of the graph; then gradients are not kept in ``parameter.grad``. Losses,
    gradients and random draws are those of the programs run as they are. Distributions are not
    validated within a graph.

    Nothing waits for the device: reports are tensors, to be read when they are needed.

    Args:
        model, guide: Pyro programs.
        estimator: One of ours, or a stock Pyro ELBO, which runs eagerly and reports its loss alone.
        optimizer: A torch or Pyro optimiser over the parameters. Plain torch ``Adam``, ``AdamW``
            and ``SGD`` are switched to torch's fused kernel.
        parameters: What the optimiser trains.
        clip_norm: Largest norm of all gradients together.
        transform: From a batch to the programs' arguments, captured with them: a new binarisation,
            or rows by index of data that live on the device.
        capture: False runs every step eagerly.
        compile: Whether Inductor compiles the graph: True, False, or ``"auto"`` where ``steps``
            calls pay for the compilation and a compiler is installed.
        steps: How many steps to expect, if known.
        networks: ``"bfloat16"`` rounds the products inside dense and convolutional layers, which is
            faster where the processor has such products. Parameters, draws, densities, gradients
            and the optimiser's state keep their dtype.
        summed: The loss is the sum over data times the subsampling scale, as Pyro's, not the mean.
        clip_value: Largest absolute value of an element of a gradient, before ``clip_norm``.
        skip: Leave out a step whose bound or gradients are not finite: parameters, buffers and
            the optimiser's state stay as they were, and :attr:`skipped` counts it. The update is
            then not part of the graph, and each step waits for the device.
        processes: Those that take each step together
            (:class:`pyrovae.training.distributed.Processes`). The graph then ends at the gradients
            of this process's rows, and the update follows their sum.
        modules: Those whose buffers a skipped step puts back; default what the programs show.

    Raises:
        TypeError: If the optimiser evaluates the loss itself, as ``LBFGS`` does.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian(shift=2.0)
        >>> trained = list(oracle.parameters())
        >>> optimizer = torch.optim.Adam(trained, lr=0.05)
        >>> step = Step(oracle.model, oracle.guide, pv.estimators.ELBO(), optimizer, trained)
        >>> bounds = [step(oracle.sample(64)).bound.item() for _ in range(20)]
        >>> bounds[-1] > bounds[0]
        True
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        estimator: pyro.infer.ELBO,
        optimizer: torch.optim.Optimizer | PyroOptim,
        parameters: Sequence[Tensor],
        *,
        clip_norm: float | None = None,
        transform: Callable[..., Any] | None = None,
        capture: bool = True,
        compile: bool | Literal["auto"] = "auto",
        steps: int | None = None,
        networks: Networks = "full",
        summed: bool = False,
        clip_value: float | None = None,
        skip: bool = False,
        processes: Any = None,
        modules: Sequence[nn.Module] | None = None,
    ):
        if networks not in ("full", "bfloat16"):
            raise ValueError(f"networks must be 'full' or 'bfloat16', found {networks!r}.")
        check_optimizer(optimizer)
        self.optimizer, self.parameters, self.processes = optimizer, list(parameters), processes
        self._stored = stored_parameters(self.parameters)
        common = model, guide, estimator, self.parameters
        options = {"transform": transform, "summed": summed}
        clips = {"clip_norm": clip_norm, "clip_value": clip_value}
        self.objective = objective(*common, **clips, **options)
        self._plain = objective(*common, **options)
        self._rounded = Bfloat16Networks if networks == "bfloat16" else nullcontext
        if not isinstance(optimizer, PyroOptim):
            prefer_fused(optimizer)
        self.update = update_for(optimizer, self.parameters)
        ours = isinstance(estimator, Estimator)
        graphs = {"enabled": capture and ours, "backend": compile, "calls": steps}
        like = next((p for p in self.parameters if p.is_floating_point()), torch.ones(()))
        instead = decompositions(like.device)  # of the update
        self._whole = compiled_of(self._take, self.objective, decompositions=instead, **graphs)
        share = self._evaluate
        if processes is not None:
            share = processes.share(self._plain, around=self._rounded, **clips)
        self._gradients = compiled_of(share, self.objective, **graphs)
        self._unclipped = compiled_of(self._evaluate_unclipped, self._plain, **graphs)
        if capture and not ours:
            why = f"{type(estimator).__name__} is not one of pyrovae.estimators"
            self._whole.reason = self._gradients.reason = why
        self.beta = torch.ones((), dtype=like.dtype, device=like.device)
        self._beta = 1.0
        self.scaled = False  # whether a beta has been met, so that graphs take one
        self._rebuilt = self._looks = 0
        self._guarded = self._settled = False
        self.skip, self.skipped = skip, 0
        held = modules_of(model, guide) if modules is None else modules
        self._buffers = [b for m in held for b in m.buffers()] if skip else []

    def __call__(self, *batch: Any, beta: float = 1.0, **kwargs: Any) -> Report:
        """Take one step on a batch; ``beta`` scales the KL term."""
        return self.take(*batch, beta=beta, **kwargs).report

    def take(self, *batch: Any, beta: float = 1.0, **kwargs: Any) -> _Taken:
        """As calling the step, with the loss besides."""
        factor = self._factor(beta)
        self._prepare()
        self._settle(batch, kwargs)
        if is_validation_enabled() and self.compiled.enabled and not self.compiled.graphs:
            with undisturbed(self.objective.model, self.objective.guide):
                self.objective.report(factor, *batch, **kwargs)  # a graph would not validate
        if self._in_graph:
            taken = self._whole(factor, *batch, **kwargs)
        else:
            before = [buffer.clone() for buffer in self._buffers]
            if self.processes is None:
                report, loss, gradients = self._gradients(factor, *batch, **kwargs)
            else:
                report, loss, gradients = self.processes.evaluate(self._gradients, factor, batch)
            if self.skip and not _finite(report, gradients):
                self.skipped += 1
                for buffer, value in zip(self._buffers, before, strict=True):
                    buffer.copy_(value)
            else:
                self.update.apply(gradients)
            taken = _Taken(report, loss)
        self.scaled = factor is not None
        return taken

    def prepare(self, *batch: Any) -> None:
        """Capture the graph for such a batch, and take no step."""
        self._prepare()
        self._settle(batch, {})
        factor = self.beta if self.scaled else None
        if self.processes is None:
            self.compiled.prepare(factor, *batch)
        else:
            self.processes.prepare(self.compiled, factor, batch)

    def gradients(self, *batch: Any, beta: float = 1.0, **kwargs: Any) -> Report:
        """Add the loss's gradients, not clipped, to the parameters' ``grad``; take no step."""
        self._settle(batch, kwargs)
        report, _, gradients = self._unclipped(self._factor(beta), *batch, **kwargs)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            if gradient is not None:
                held = parameter.grad
                parameter.grad = gradient if held is None else held + gradient
        return report

    @contextmanager
    def guarded(self, *, flush: bool = True) -> Iterator[None]:
        """Check now, and not at each step inside, whether programs or optimiser have changed.

        Learning rates and beta may go on changing. ``flush`` says whether to free the optimiser's
        state of denormal numbers now.
        """
        if flush:
            flush_denormals(self.optimizer)
        self._prepare()
        with self.compiled.guarded():
            self._guarded = True
            try:
                yield
            finally:
                self._guarded = False

    def resume(self, count: int) -> None:
        """Go on after so many steps in an earlier process: a compiled graph takes over at the step
        at which it would have there.
        """
        for function in (self._whole, self._gradients):
            function.resume(count)

    @property
    def compiled(self) -> Compiled:
        """The function that takes the steps, with its graphs and the reason for running eagerly, if
        any.
        """
        return self._whole if self._in_graph else self._gradients

    @property
    def _in_graph(self) -> bool:
        """Whether the graph of a step ends with its update."""
        return self.update.in_graph and not self.skip and self.processes is None

    def _take(self, beta: Tensor | None, *batch: Any, **kwargs: Any) -> _Taken:
        report, loss, gradients = self._evaluate(beta, *batch, **kwargs)
        self.update.apply(gradients)
        return _Taken(report, loss)

    def _evaluate(self, beta: Tensor | None, *batch: Any, **kwargs: Any) -> Evaluation:
        with self._rounded():
            return self.objective(beta, *batch, **kwargs)

    def _evaluate_unclipped(self, beta: Tensor | None, *batch: Any, **kwargs: Any) -> Evaluation:
        with self._rounded():
            return self._plain(beta, *batch, **kwargs)

    def _prepare(self) -> None:
        """Drop gradients, and follow the optimiser's settings and state."""
        if self._guarded:
            return self.update.refresh()
        if is_stale(self._stored):
            raise ValueError(
                f"Pyro's store no longer holds the parameters {list(self._stored)} that are "
                "trained here: the store was cleared, or a parameter replaced. Leave the store as "
                "it is while training, or start a new training."
            )
        self._looks += 1
        if self._looks % FLUSH_EVERY == 0:
            flush_denormals(self.optimizer)
        for parameter in self.parameters:
            parameter.grad = None
        if not self.update.ready():
            self._rebuilt += 1
            in_graph = self._rebuilt <= _PATIENCE
            self.update = update_for(self.optimizer, self.parameters, in_graph=in_graph)
            self.update.ready()
            self._whole.clear()
        return None

    def _settle(self, batch: tuple, kwargs: dict[str, Any]) -> None:
        """Once, before a graph is captured."""
        if not self._settled:
            self._settled = True
            self._plain.settle(*batch, **kwargs)

    def _factor(self, beta: float) -> Tensor | None:
        """Beta as a tensor, which a graph reads at each call; None for the programs as they are."""
        if beta != self._beta:
            self.beta.fill_(beta)
            self._beta = beta
        # Once the scaled programs are captured they also serve beta = 1, exactly. An ELBO of Pyro's
        # own would evaluate them once more.
        kept = self.scaled and isinstance(self.objective.estimator, Estimator)
        return self.beta if beta != 1.0 or kept else None


def compiled_of(function: Callable[..., Any], of: Objective, **graphs: Any) -> Compiled:
    """A function of an objective, as a graph."""
    return compile(function, settings=of.settings, **graphs)


def _finite(report: Report, gradients: Sequence[Tensor | None]) -> bool:
    """Whether a step may be taken; waits for the device."""
    values = [report.bound, *(g for g in gradients if g is not None)]
    return all(bool(torch.isfinite(value).all()) for value in values)
