"""A function of tensors, run as a captured graph wherever that gives the same results."""

import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, fx

from pyrovae.compilation import cuda, inductor, products
from pyrovae.compilation.capture import Graph, Uncapturable, capture, decomposed, layout_of
from pyrovae.compilation.frozen import Frozen
from pyrovae.compilation.libraries import Library
from pyrovae.compilation.nests import filled, leaves_of, rebuilder, taken_apart
from pyrovae.compilation.threads import one_thread

__all__ = ["MOST_GRAPHS", "Compiled", "compile"]

MOST_GRAPHS = 8
"""Captured graphs that one function may have, and times that its settings may change."""

Pass = Callable[[fx.GraphModule], Any]


class _Entry(NamedTuple):
    """A graph, and how its outputs make up the function's result."""

    graph: Graph
    rebuild: Callable[[Iterator[Any]], Any]
    fixed: list[Any]  # the leaves of the result that are no tensors; tensors stand as _TENSOR
    small: bool  # one thread does for it


class _Later(NamedTuple):
    """A captured graph that a compiled one takes over from."""

    after: int  # calls
    graph: Graph
    lowered: Graph
    inputs: list[Tensor]
    built: Library | None


_TENSOR = object()


class Compiled:
    """A function with the same results as the one given, which runs as a graph where it can.

    The function is captured once for each layout of its tensor arguments (shape, strides, dtype,
    device) and each value of its other arguments, without being run: random draws stay draws, and
    tensors that it changes in place are changed at each call. Parameters, buffers and data that it
    closes over are read where they are. Python values that it reads are frozen into the graph, and
    the graph is captured anew when one of ``settings`` changes.

    The function itself runs, with one warning that says why, where it makes no fixed graph, for
    more than ``MOST_GRAPHS`` layouts, and where its settings keep changing.

    Args:
        function: From tensors, and hashable values, to tensors in any nest of tuples and lists. It
            may change tensors that it closes over in place; it keeps nothing else.
        settings: Programs, modules, handlers and other objects whose attributes the function reads.
        passes: Changes of the captured graph, in place, before it is compiled.
        decompositions: For Inductor, what to trace in place of an operator.
        random: False refuses a graph that draws random numbers; the function then runs itself.
        enabled: False runs the function itself.
        quiet: Whether to leave out the warnings.
        backend: Whether Inductor compiles the graphs: True, False, or ``"auto"`` for the first
            arguments of some kinds (layouts and other values may vary) where ``calls`` calls pay
            for the compilation and a compiler is installed.
        calls: How many calls to expect, if known.
        background: Whether ``"auto"`` compiles on CPU beside the first calls, which run the
            captured graph. The compiled one takes over at a call that graph and ``calls`` decide.

    Raises:
        ValueError: If ``backend`` is something else.

    Attributes:
        reason: Why the function runs itself, or None.
        compile_seconds: Time that calls waited for Inductor.
        calls_made: Calls of its graphs so far.

    Example:
        >>> double = Compiled(lambda x: 2 * x)
        >>> double(torch.ones(2)), double.reason
        (tensor([2., 2.]), None)
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        settings: Sequence[Any] = (),
        passes: Sequence[Pass] = (products.use_onednn,),
        decompositions: Mapping[Any, Callable[..., Any]] | None = None,
        random: bool = True,
        enabled: bool = True,
        quiet: bool = False,
        backend: bool | Literal["auto"] = "auto",
        calls: int | None = None,
        background: bool = True,
    ):
        if backend not in (True, False, "auto"):
            raise ValueError(f"compile must be True, False or 'auto', found {backend!r}.")
        self.function, self.settings, self.passes = function, tuple(settings), tuple(passes)
        self.decompositions, self.backend, self.calls = decompositions, backend, calls
        self.random, self.enabled, self.quiet = random, enabled, quiet
        self.background = background
        self.reason: str | None = None if enabled else "capture is off"
        self.compile_seconds = 0.0
        self.calls_made = 0
        self._entries: dict[Hashable, _Entry] = {}
        self._later: _Later | None = None
        self._frozen: Frozen | None = None
        self._changes = 0
        self._guarded = False
        self._warned: set[str] = set()

    @property
    def graphs(self) -> list[Graph]:
        """The graphs captured so far."""
        return [entry.graph for entry in self._entries.values()]

    @property
    def small(self) -> bool:
        """Whether there are graphs, and one thread does for all of them."""
        return bool(self._entries) and all(entry.small for entry in self._entries.values())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._guarded:
            self._check_settings()
        if not self.enabled:
            return self.function(*args, **kwargs)
        leaves, structure = taken_apart(args, kwargs)
        try:
            entry = self._entry(leaves, structure)
        except Uncapturable as error:
            result = self.function(*args, **kwargs)  # an error of the caller's shows itself here
            self.stop(str(error))
            return result
        if entry is None:
            return self.function(*args, **kwargs)
        self.calls_made += 1
        if self._later is not None and self.calls_made > self._later.after:
            self._switch()
        outputs = iter(entry.graph(*(leaf for leaf in leaves if isinstance(leaf, Tensor))))
        found = [next(outputs) if leaf is _TENSOR else leaf for leaf in entry.fixed]
        return entry.rebuild(iter(found))

    def prepare(self, *args: Any) -> None:
        """Capture the graph for such arguments, if they make one, without a call.

        A compiler then builds for as many threads as it would inside :meth:`guarded`.
        """
        if self.enabled:
            with suppress(Uncapturable), self.guarded():  # a call will say why there is no graph
                self._entry(*taken_apart(args, {}))

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Check the settings now, and not at each call inside, which runs on one thread if
        :attr:`small`.
        """
        self._check_settings()
        with one_thread(self.small):
            self._guarded = True
            try:
                yield
            finally:
                self._guarded = False

    def clear(self) -> None:
        """Forget all graphs. The next call captures anew."""
        self._entries.clear()
        self._frozen = self._later = None

    def resume(self, calls: int) -> None:
        """Go on after so many calls in an earlier process, as if they had been made here."""
        self.calls_made = calls

    def stop(self, reason: str) -> None:
        """Let the function run itself from now on, and warn why."""
        self.enabled, self.reason = False, reason
        self.clear()
        self._warn(f"running eagerly, without a captured graph: {reason}")

    def _check_settings(self) -> None:
        if self._frozen is None:
            return
        changed = self._frozen.changed()
        if not changed and any(entry.graph.moved() for entry in self._entries.values()):
            changed = "the layout of a parameter"
        if not changed:
            return
        self.clear()
        self._changes += 1
        if self._changes > MOST_GRAPHS:
            advice = "a graph would freeze it; hold it in a tensor instead"
            self.stop(f"{changed} keeps changing, and {advice}")

    def _entry(self, leaves: Sequence[Any], structure: Any) -> _Entry | None:
        """The graph for such arguments; None where the function has to run itself."""
        kinds = tuple(Tensor if isinstance(x, Tensor) else type(x) for x in leaves)
        values = tuple(layout_of(x) if isinstance(x, Tensor) else x for x in leaves)
        try:
            key = (structure, kinds), values
            found = self._entries.get(key)
        except TypeError:
            raise Uncapturable("an argument is neither a tensor nor hashable") from None
        if found is not None:
            return found
        if any(isinstance(x, Tensor) and x.requires_grad for x in leaves):
            raise Uncapturable("an argument requires a gradient, which a graph cannot give")
        if len(self._entries) >= MOST_GRAPHS:
            self._warn(f"further batch shapes run eagerly: more than {MOST_GRAPHS} have been met")
            return None
        first = all(known[0] != key[0] for known in self._entries)  # type: ignore[index]
        self._entries[key] = entry = self._capture(leaves, structure, first)
        if self._frozen is None:
            self._frozen = Frozen(*self.settings)
            if self._frozen.unfit:
                raise Uncapturable(self._frozen.unfit)
        return entry

    def _capture(self, leaves: Sequence[Any], structure: Any, first: bool) -> _Entry:
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        result: list[Any] = []

        def flat(*inputs: Tensor) -> tuple[Tensor, ...]:
            rest = iter(inputs)
            given = [next(rest) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            args, kwargs = filled(structure, given)
            found = self.function(*args, **kwargs)
            outputs = list(leaves_of(found))
            fixed = [_TENSOR if isinstance(output, Tensor) else output for output in outputs]
            result[:] = [rebuilder(found), fixed]
            return tuple(output for output in outputs if isinstance(output, Tensor))

        graph = capture(flat, tensors, *self.settings)
        if graph.draws and not self.random:
            raise Uncapturable("it draws random numbers, which are not to come from within a graph")
        device = next((t.device.type for t in (*tensors, *graph.constants)), "cpu")
        small = device == "cpu" and inductor.arithmetic_seconds(graph) < inductor.ONE_THREAD
        if self._guarded and small and not self._entries:
            torch.set_num_threads(1)  # a compiler builds for the threads that there are now
        if (after := self._compile_after(graph, device, first)) is not None:
            lowered = decomposed(graph, tensors, self.decompositions or {})
            for change in self.passes:
                change(lowered.module)
            now = self.calls_made >= after
            built = None if now else inductor.begin(lowered, tensors)
            self._later = _Later(after, graph, lowered, tensors, built)
            if now:
                self._switch()
        if graph.kind == "captured":
            for change in self.passes:
                change(graph.module)
        if device == "cuda":
            try:
                cuda.record(graph, tensors)
            except RuntimeError as error:  # an operation that waits for the host
                self._warn(f"the step is not recorded as a CUDA graph: {error!r:.200}")
        rebuild, fixed = result
        return _Entry(graph, rebuild, fixed, small)

    def _switch(self) -> None:
        """Let a captured graph go on as what the compiler made of it."""
        assert self._later is not None
        _, graph, lowered, tensors, built = self._later
        self._later = None
        try:
            self.compile_seconds += inductor.compile_graph(lowered, tensors, built)
        except Exception as error:  # of many kinds; the captured graph is right without Inductor
            said = f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}"
            self._warn(f"the step is captured but not compiled: Inductor failed with {said}")
        else:
            graph.become(lowered)

    def _compile_after(self, graph: Graph, device: str, first: bool) -> int | None:
        """After how many calls the compiled graph takes over; None for never."""
        if self.backend is True:
            if inductor.has_compiler(device):
                return 0
            why = f"no compiler for {device} is installed"
            self._warn(f"the step is captured but not compiled: {why}")
        elif self.backend == "auto" and first and inductor.has_compiler(device):
            if self.background and device == "cpu":
                return inductor.switch_after(graph, self.calls)
            return 0 if inductor.worth_compiling(graph, self.calls) else None
        return None

    def _warn(self, text: str) -> None:
        if text not in self._warned and not self.quiet:
            self._warned.add(text)
            warnings.warn(f"{text[0].upper()}{text[1:]}.", stacklevel=3)


compile = Compiled
"""The verb, for where a function is compiled."""
