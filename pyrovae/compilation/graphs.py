"""Graphs of one function, kept by shape: when to capture, compile or replay, and when to stay eager."""

import time
import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from pyrovae.compilation import lowering, matmul, native
from pyrovae.compilation.capture import Graph, Uncapturable, capture
from pyrovae.compilation.frozen import Frozen

__all__ = ["Engine"]

MOST_GRAPHS = 8
PATIENCE = 2  # eager runs of a further shape before it is worth a graph of its own


class Engine:
    """Runs functions of tensors as captured graphs where that is possible.

    The first shape is captured at once, others (an unequal last batch) at their third appearance; beyond eight
    shapes, or where a function cannot be captured, runs are eager, with one warning that says why. A graph is
    captured again when a setting that it has frozen changes.

    Args:
        settings: Programs and objects whose attributes the graphs freeze.
        enabled: False runs everything eagerly.
        compile: Whether Inductor compiles the graphs: True, False, or ``"auto"`` for the first shape if
            ``steps`` runs pay it back and a compiler is at hand.
        steps: How many runs to expect, if known.

    Attributes:
        reason: Why the last run was eager, or None.
        compile_seconds: Time spent in Inductor, and in building kernels of our own.
    """

    def __init__(
        self,
        *settings: Any,
        enabled: bool = True,
        compile: bool | Literal["auto"] = "auto",
        steps: int | None = None,
    ):
        if compile not in (True, False, "auto"):
            raise ValueError(f"compile must be True, False or 'auto', found {compile!r}.")
        self.settings, self.enabled, self.compile, self.steps = settings, enabled, compile, steps
        self.reason: str | None = None if enabled else "capture is off"
        self.compile_seconds = 0.0
        self.graphs: dict[Any, Graph] = {}
        self._sightings: dict[Hashable, int] = {}
        self._frozen: Frozen | None = None
        self._recaptured = 0
        self._said: set[str] = set()

    def graph(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        inputs: Sequence[Any],
        *,
        name: Hashable = None,
        rehearse: Callable[..., Any] | None = None,
        whole: Callable[[Graph], Callable[..., tuple[Tensor, ...]] | None] | None = None,
    ) -> Graph | None:
        """The graph of ``function`` for such inputs, or None where it has to run eagerly.

        Args:
            function: From tensors to a tuple of tensors.
            inputs: What it will be called with.
            name: Tells functions apart.
            rehearse: Called with the inputs before a capture, without gradients or effect on random state and
                buffers: the function's forward part, so that errors in the data show themselves and lazy
                initialisation is over.
            whole: Called with the graph of ``function`` if it is to be compiled or recorded: may change the graph,
                or give a function to capture in its place, which may go further.
        """
        if not self.enabled:
            return None
        if self._frozen is not None and (changed := self._frozen.changed()):
            self._forget(changed)
            if not self.enabled:
                return None
        key = (name, *map(_layout, inputs))
        found = self.graphs.get(key)
        if found is not None:
            return found
        return self._new(function, inputs, key, rehearse, whole)

    def _new(
        self, function: Any, inputs: Sequence[Any], key: Any, rehearse: Any, whole: Any
    ) -> Graph | None:
        if not all(isinstance(value, Tensor) and not value.requires_grad for value in inputs):
            self.stop("its arguments are not all tensors without gradients")
            return None
        first = all(known[0] != key[0] for known in self.graphs)
        seen = self._sightings[key] = self._sightings.get(key, 0) + 1
        if not first and seen <= PATIENCE:
            return None
        if len(self.graphs) >= MOST_GRAPHS:
            self._say(f"further batch shapes run eagerly: more than {MOST_GRAPHS} have been met")
            return None
        try:
            if rehearse is not None:
                self._rehearsal(rehearse, inputs)
            graph = capture(function, inputs, *self.settings)
            wanted = self._wants_compiler(graph, inputs, first)
            lowered = wanted or inputs[0].device.type == "cuda"
            further = whole(graph) if whole is not None and lowered else None
            if further is not None:
                graph = capture(further, inputs, *self.settings)
        except Uncapturable as error:
            self.stop(str(error))
            return None
        if self._frozen is None:
            self._frozen = Frozen(*self.settings)
        self.graphs[key] = self._lowered(graph, inputs, wanted)
        return graph

    def _wants_compiler(self, graph: Graph, inputs: Sequence[Tensor], first: bool) -> bool:
        device = inputs[0].device.type
        wanted = self.compile is True or (
            self.compile == "auto" and first and lowering.worth_compiling(graph, self.steps)
        )
        if wanted and not lowering.has_compiler(device):
            if self.compile is True:
                self._say(
                    f"the step is captured but not compiled: no compiler for {device} is installed"
                )
            return False
        if wanted and device == "cpu":
            start = time.perf_counter()
            native.kernels()
            self.compile_seconds += time.perf_counter() - start
        return wanted

    def _lowered(self, graph: Graph, inputs: Sequence[Tensor], wanted: bool) -> Graph:
        device = inputs[0].device.type
        if device == "cpu":
            matmul.rewrite(graph.module, compiled=wanted)
        if wanted:
            try:
                self.compile_seconds += lowering.compile_graph(graph, inputs)
            except (
                Exception
            ) as error:  # Inductor's failures are many; the captured graph is right without it
                self._say(
                    f"the step is captured but not compiled: Inductor failed with {error!r:.200}"
                )
        if device == "cuda":
            try:
                lowering.replay(graph, inputs)
            except RuntimeError as error:  # an operation that waits for the host cannot be recorded
                self._say(f"the step is captured but not recorded as a CUDA graph: {error!r:.200}")
        return graph

    def _rehearsal(self, rehearse: Callable[..., Any], inputs: Sequence[Tensor]) -> None:
        buffers = [t for t in Frozen(*self.settings).tensors() if not t.requires_grad]
        before = [t.clone() for t in buffers]
        devices = [inputs[0].device] if inputs[0].device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            rehearse(*inputs)
            for tensor, value in zip(buffers, before, strict=True):
                tensor.copy_(value)

    def clear(self) -> None:
        """Forget all graphs; what comes next is captured anew."""
        self.graphs.clear()
        self._frozen = None

    def _forget(self, changed: str) -> None:
        self.clear()
        self._recaptured += 1
        if self._recaptured > MOST_GRAPHS:
            self.stop(
                f"{changed} keeps changing, and a graph would freeze it; hold it in a tensor instead"
            )

    def stop(self, reason: str) -> None:
        """Run eagerly from now on, and say why."""
        self.enabled, self.reason = False, reason
        self.graphs.clear()
        warnings.warn(f"Running eagerly, without a captured graph: {reason}.", stacklevel=2)

    def _say(self, text: str) -> None:
        if text in self._said:
            return
        self._said.add(text)
        warnings.warn(f"{text[0].upper()}{text[1:]}.", stacklevel=2)


def _layout(value: Any) -> Hashable:
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    return type(value)
