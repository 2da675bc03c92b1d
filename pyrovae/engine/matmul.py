"""Float32 matrix products on CPU: torch's default or oneDNN, whichever a short measurement finds faster here."""

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

__all__ = ["fastest_product", "is_faster", "onednn_is_faster", "rewrite"]

aten = torch.ops.aten
SMALLEST = 2e6  # floating-point operations, below which the call costs more than the product
MARGIN = 0.9  # of the default's time; closer than that, the default stays
Layout = tuple[tuple[int, ...], tuple[int, ...]]


_libraries: list[Any] = []  # a library lives as long as its object


@functools.cache
def _operators() -> Any:
    """Our names for oneDNN's product: Inductor wants a constant weight of oneDNN's own, and leaves ours alone."""
    library = torch.library.Library("pyrovae", "DEF")
    library.define("mm(Tensor a, Tensor b) -> Tensor")
    library.define("addmm(Tensor bias, Tensor a, Tensor b) -> Tensor")
    product = torch.ops.mkldnn._linear_pointwise
    library.impl("mm", lambda a, b: product(a, b.t(), None, "none", [], ""), "CPU")
    library.impl("addmm", lambda bias, a, b: product(a, b.t(), bias, "none", [], ""), "CPU")
    library.impl("mm", lambda a, b: a.new_empty(a.shape[0], b.shape[1]), "Meta")
    library.impl("addmm", lambda bias, a, b: a.new_empty(a.shape[0], b.shape[1]), "Meta")
    _libraries.append(library)
    return torch.ops.pyrovae


def available() -> bool:
    """Whether this build of torch has oneDNN's product."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def rewrite(module: fx.GraphModule, faster: Callable[[Layout, Layout, int], bool] | None = None) -> int:
    """Put oneDNN's product where it is faster, in place; returns how many products changed.

    Args:
        module: A captured graph of ATen calls.
        faster: Judge of two layouts (shape and strides) and the number of threads; default
            :func:`onednn_is_faster`.
    """
    if not available():
        return 0
    faster, changed = faster or onednn_is_faster, 0
    for node in module.graph.nodes:
        if (
            node.op != "call_function"
            or node.kwargs
            or node.target not in (aten.mm.default, aten.addmm.default)
        ):
            continue
        values = [argument.meta.get("val") for argument in node.args if isinstance(argument, fx.Node)]
        *bias, a, b = (t for t in values if isinstance(t, Tensor) and t.device.type == "cpu")
        if len(values) != len(node.args) or a.dtype != torch.float32 or b.dtype != torch.float32:
            continue
        if bias and bias[0].shape != (b.shape[1],):
            continue
        if 2.0 * a.shape[0] * b.numel() < SMALLEST:
            continue
        layouts = [(tuple(t.shape), tuple(t.stride())) for t in (a, b)]
        if faster(layouts[0], layouts[1], torch.get_num_threads()):
            node.target = _operators().addmm.default if bias else _operators().mm.default
            changed += 1
    if changed:
        module.recompile()
    return changed


@functools.cache
def onednn_is_faster(left: Layout, right: Layout, threads: int) -> bool:
    """Time both products once per process on operands of these layouts: a few milliseconds."""
    a, b = (torch.empty_strided(*layout).fill_(0.5) for layout in (left, right))
    ours = _operators().mm.default
    with torch.no_grad():
        return is_faster(lambda: ours(a, b), lambda: torch.mm(a, b))


def fastest_product(a: Tensor, b: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The product that :func:`rewrite` would put in the place of ``torch.mm`` for such operands."""
    layouts = [(tuple(t.shape), tuple(t.stride())) for t in (a, b)]
    fits = available() and a.dtype == b.dtype == torch.float32
    chosen = fits and onednn_is_faster(layouts[0], layouts[1], torch.get_num_threads())
    return _operators().mm.default if chosen else torch.mm


def is_faster(ours: Callable[[], object], default: Callable[[], object]) -> bool:
    """Whether ``ours`` is clearly faster than ``default`` in five alternating runs."""
    ratios, best = [], [float("inf"), float("inf")]
    for run in (default, ours):
        run()
    for _ in range(5):
        times = []
        for run in (default, ours):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        ratios.append(times[1] / times[0])
        best = [min(pair) for pair in zip(best, times, strict=True)]
    # On a busy machine either measure alone can mislead.
    return statistics.median(ratios) < MARGIN and best[1] < MARGIN * best[0]
