"""Inductor: whether compiling a graph pays, and the compilation."""

import copy
import functools
import logging
import math
import shutil
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from pyrovae.compilation.capture import Graph, layout_of
from pyrovae.compilation.libraries import Library
from pyrovae.compilation.library_build import without_cuda_warning

__all__ = [
    "arithmetic_seconds",
    "begin",
    "compile_graph",
    "has_compiler",
    "pays_back",
    "switch_after",
    "worth_compiling",
]

log = logging.getLogger(__name__)

COMPILE_SECONDS = 10.0  # two cores, empty cache
BACKGROUND_SECONDS = 15.0  # the same while a training run keeps the cores busy
SECONDS_PER_NODE = 5e-6  # dispatch of one ATen call from Python
BYTES_PER_SECOND = 10e9  # of intermediate results that fused kernels never write
FLOPS_PER_SECOND = 2e11  # of products, which a compiler leaves as they are
ONE_THREAD = 3e-3
"""Estimated seconds of arithmetic on one thread up to which a graph runs on one."""


@functools.cache
def has_compiler(device: str) -> bool:
    """Whether Inductor can build kernels for this kind of device here."""
    if device == "cpu":
        return any(shutil.which(name) for name in ("g++", "clang++", "c++"))
    if device == "cuda":
        try:
            import triton  # noqa: F401
        except ImportError:
            return False
        return True
    return False


def worth_compiling(graph: Graph, steps: int | None) -> bool:
    """Whether ``steps`` runs of a graph pay back a compilation that they wait for.

    A rule of the graph and the number of steps alone, never of a clock or of what a cache holds, so
    that the same run always takes the same path.
    """
    return steps is not None and steps * _saved(graph) > 2 * COMPILE_SECONDS


def switch_after(graph: Graph, steps: int | None) -> int | None:
    """After how many of ``steps`` runs a graph goes on as a library that was built meanwhile.

    None where that does not pay. By then a build should be done; where it is not, it is waited for.
    A rule of the graph and the number of steps alone, as :func:`worth_compiling`.
    """
    if steps is None:
        return None
    products = sum(map(_flops, graph.module.graph.nodes))
    saved = _saved(graph)
    first = math.ceil(BACKGROUND_SECONDS / (saved + products / FLOPS_PER_SECOND))
    return first if (steps - first) * saved > COMPILE_SECONDS else None


def arithmetic_seconds(graph: Graph) -> float:
    """Estimated time that one thread computes in each run of a graph, by its size alone."""
    products = 2 * sum(map(_flops, graph.module.graph.nodes)) / FLOPS_PER_SECOND
    state = sum(tensor.nbytes for tensor in graph.written)  # is read and written
    return products + (_bytes(graph) + 2 * state) / BYTES_PER_SECOND


def _saved(graph: Graph) -> float:
    """Seconds that compilation saves in each run of a graph."""
    calls = sum(node.op == "call_function" for node in graph.module.graph.nodes)
    return SECONDS_PER_NODE * calls + _bytes(graph) / BYTES_PER_SECOND


def _bytes(graph: Graph) -> int:
    """Bytes of intermediate results."""
    calls = (n for n in graph.module.graph.nodes if n.op == "call_function")
    return sum(n.meta["val"].nbytes for n in calls if isinstance(n.meta.get("val"), Tensor))


def _flops(node: fx.Node) -> float:
    from torch.utils.flop_counter import flop_registry

    count = flop_registry.get(getattr(node.target, "overloadpacket", None))
    if count is None:
        return 0.0
    args, kwargs = pytree.tree_map_only(fx.Node, lambda n: n.meta["val"], (node.args, node.kwargs))
    return count(*args, **kwargs, out_val=node.meta["val"])


def pays_back(bytes_written: float, calls: float = 0) -> bool:
    """Whether not writing so many bytes, by so many fewer calls, is worth a compilation."""
    return SECONDS_PER_NODE * calls + bytes_written / BYTES_PER_SECOND > 2 * COMPILE_SECONDS


def begin(graph: Graph, inputs: Sequence[Tensor]) -> Library | None:
    """The graph's library, which another process builds; None for a graph that cannot be one."""
    found = _library(graph, inputs)
    try:
        if found is not None:
            found.start()
    except (OSError, TypeError) as error:  # no interpreter, no more processes: built when needed
        log.info("No process builds beside this one: %s.", error)
    return found


def _library(graph: Graph, inputs: Sequence[Tensor]) -> Library | None:
    try:
        return Library(graph, inputs)
    except (OSError, RuntimeError) as error:
        log.info("Inductor compiles within this process: %s.", error)
        return None


def compile_graph(graph: Graph, inputs: Sequence[Tensor], built: Library | None = None) -> float:
    """Let Inductor compile a captured graph in place; returns the seconds it took.

    Random draws stay torch's own, so results agree with the uncompiled graph to rounding under the
    same seed. On CPU the result is a library on disk, which the next process loads. Where a graph
    cannot be one, Inductor compiles within this process.

    Args:
        graph: The graph.
        inputs: Examples of what it is called with.
        built: Its library, if the build has begun.

    Raises:
        Exception: Whatever Inductor raises; the graph is then as it was.
    """
    start = time.perf_counter()
    run = None
    if (built := built or _library(graph, inputs)) is not None:
        try:
            run = built.load()
            graph.layouts = [layout_of(tensor) for tensor in graph.constants]
        except Exception as error:  # of many kinds; what follows may do
            log.info("Inductor builds no library: %s.", error)
    graph.run = run or _within_this_process(graph, inputs)
    graph.kind = "compiled"
    seconds = time.perf_counter() - start
    log.info("Inductor compiled %d operations in %.1f s.", len(graph.module.graph.nodes), seconds)
    return seconds


def _within_this_process(graph: Graph, inputs: Sequence[Tensor]) -> Any:
    arguments = [tensor.detach() for tensor in (*graph.constants, *inputs)]
    options = {"fallback_random": True}
    with torch.no_grad(), without_cuda_warning():
        from torch._inductor.compile_fx import compile_fx

        return compile_fx(copy.deepcopy(graph.module), arguments, config_patches=options)
