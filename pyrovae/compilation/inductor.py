"""Inductor: whether compiling a graph pays, and the compilation."""

import copy
import functools
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pyrovae.compilation.capture import Graph

__all__ = ["compile_graph", "has_compiler", "pays_back", "worth_compiling"]

log = logging.getLogger(__name__)

COMPILE_SECONDS = 20.0  # two cores, empty cache
SECONDS_PER_NODE = 5e-6  # dispatch of one ATen call from Python
BYTES_PER_SECOND = 10e9  # of intermediate results that fused kernels never write


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
    """Whether ``steps`` runs of a graph pay back its compilation.

    A rule of the graph and the number of steps alone, never of a clock, so that the same run always
    takes the same path.
    """
    if steps is None:
        return False
    calls = [n for n in graph.module.graph.nodes if n.op == "call_function"]
    sizes = (n.meta["val"].nbytes for n in calls if isinstance(n.meta.get("val"), Tensor))
    return pays_back(steps * sum(sizes), steps * len(calls))


def pays_back(bytes_written: float, calls: float = 0) -> bool:
    """Whether not writing so many bytes, by so many fewer calls, is worth a compilation."""
    return SECONDS_PER_NODE * calls + bytes_written / BYTES_PER_SECOND > 2 * COMPILE_SECONDS


def compile_graph(graph: Graph, inputs: Sequence[Tensor]) -> float:
    """Let Inductor compile a captured graph in place; returns the seconds it took.

    Random draws stay torch's own, so results agree with the uncompiled graph to rounding under the
    same seed. Inductor caches compiled kernels on disk across processes.

    Raises:
        Exception: Whatever Inductor raises; the graph is then as it was.
    """
    from torch._inductor.compile_fx import compile_fx

    start = time.perf_counter()
    arguments = [tensor.detach() for tensor in (*graph.constants, *inputs)]
    with torch.no_grad(), _without_cuda_warning():
        compiled: Any = compile_fx(
            copy.deepcopy(graph.module), arguments, config_patches={"fallback_random": True}
        )
    graph.run = compiled
    graph.kind = "compiled"
    seconds = time.perf_counter() - start
    log.info("Inductor compiled %d operations in %.1f s.", len(graph.module.graph.nodes), seconds)
    return seconds


@contextmanager
def _without_cuda_warning() -> Iterator[None]:
    """Torch warns of a CUDA toolkit on a machine without a GPU when it first
    compiles, for CPU too.
    """
    logger = logging.getLogger("torch.utils.cpp_extension")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
