"""Float32 matrix products on CPU: torch's default, oneDNN or our own, whichever a short measurement finds fastest."""

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from pyrovae.compilation import native
from pyrovae.compilation.choices import remembered

__all__ = ["choose", "fastest", "fastest_product", "rewrite"]

aten = torch.ops.aten
SMALLEST = 2e6  # floating-point operations, below which the call costs more than the product
MARGIN = 0.97  # of the default's time; closer than that, the default stays
Layout = tuple[tuple[int, ...], tuple[int, ...]]

_libraries: list[Any] = []  # a library lives as long as its object


@functools.cache
def _operators() -> Any:
    """Names for products that Inductor leaves alone: of oneDNN's own it wants a constant weight."""
    library = torch.library.Library("pyrovae", "DEF")
    for name, form in (("onednn", _onednn), ("native", _native)):
        library.define(f"{name}_mm(Tensor a, Tensor b) -> Tensor")
        library.define(f"{name}_addmm(Tensor bias, Tensor a, Tensor b) -> Tensor")
        library.impl(f"{name}_mm", functools.partial(form, None), "CPU")
        library.impl(f"{name}_addmm", form, "CPU")
        library.impl(f"{name}_mm", _without_data, "Meta")
        library.impl(f"{name}_addmm", lambda bias, a, b: _without_data(a, b), "Meta")
    _libraries.append(library)
    return torch.ops.pyrovae


def _without_data(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[1])


def _onednn(bias: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(a, b.t(), bias, "none", [], "")


def _native(bias: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    """Ours; the second operand is a weight, or the transpose of one."""
    library = native.kernels()
    assert library is not None
    a = a.contiguous()
    (batch, inner), columns = a.shape, b.shape[1]
    out = a.new_empty(batch, columns)
    sizes = batch, inner, columns, torch.get_num_threads()
    if b.stride(0) == 1 and b.stride(1) == inner:
        shift = None if bias is None else bias.contiguous()
        held = None if shift is None else shift.data_ptr()
        library.forward_float(a.data_ptr(), b.data_ptr(), held, out.data_ptr(), *sizes)
        return out
    library.backward_float(a.data_ptr(), b.contiguous().data_ptr(), out.data_ptr(), *sizes)
    return out if bias is None else out.add_(bias)


def available() -> bool:
    """Whether this build of torch has oneDNN's product."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def rewrite(
    module: fx.GraphModule,
    chosen: Callable[..., str | None] | None = None,
    *,
    compiled: bool = False,
) -> int:
    """Put the fastest product where it is not the default, in place; returns how many products changed.

    Args:
        module: A captured graph of ATen calls.
        chosen: Judge of two layouts (shape and strides), whether there is a bias, the number of threads, and
            ``compiled``; default :func:`choose`.
        compiled: Whether kernels of our own may be built.
    """
    chosen, changed = chosen or choose, 0
    for node in module.graph.nodes:
        if (
            node.op != "call_function"
            or node.kwargs
            or node.target not in (aten.mm.default, aten.addmm.default)
        ):
            continue
        values = [
            argument.meta.get("val") for argument in node.args if isinstance(argument, fx.Node)
        ]
        *bias, a, b = (t for t in values if isinstance(t, Tensor) and t.device.type == "cpu")
        if len(values) != len(node.args) or a.dtype != torch.float32 or b.dtype != torch.float32:
            continue
        if bias and bias[0].shape != (b.shape[1],):
            continue
        if 2.0 * a.shape[0] * b.numel() < SMALLEST:
            continue
        name = chosen(_layout(a), _layout(b), bool(bias), torch.get_num_threads(), compiled)
        if name is not None:
            node.target = _product(name, bool(bias))
            changed += 1
    if changed:
        module.recompile()
    return changed


def _layout(tensor: Tensor) -> Layout:
    return tuple(tensor.shape), tuple(tensor.stride())


@functools.cache
def choose(left: Layout, right: Layout, biased: bool, threads: int, compiled: bool) -> str | None:
    """``"onednn"``, ``"native"`` or None for the default: timed once on such operands, in milliseconds."""
    asked = left, right, biased, compiled
    name = remembered(("product", threads, *asked), lambda: _measured(*asked))
    usable = {"onednn": available(), "native": compiled and native.kernels() is not None}
    return name if usable.get(name) else None


def _measured(left: Layout, right: Layout, biased: bool, compiled: bool) -> str | None:
    operands = [torch.empty_strided(*layout).fill_(0.5) for layout in (left, right)]
    names = [None, *["onednn"] * available(), *["native"] * (compiled and _suits(*operands))]
    if biased:
        operands.insert(0, torch.zeros(right[0][1]))
    with torch.no_grad():
        return names[
            fastest([functools.partial(_product(name, biased), *operands) for name in names])
        ]


def _product(name: str | None, biased: bool) -> Callable[..., Tensor]:
    if name is None:
        return torch.addmm if biased else torch.mm
    return getattr(_operators(), f"{name}_addmm" if biased else f"{name}_mm").default


def _suits(a: Tensor, b: Tensor) -> bool:
    """Whether our kernels take such operands as they are."""
    library = native.kernels()
    if library is None or not a.is_contiguous():
        return False
    return b.t().is_contiguous() or (b.is_contiguous() and b.shape[1] >= library.narrowest())


def fastest_product(a: Tensor, b: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The product that :func:`rewrite` would put in the place of ``torch.mm`` for such operands."""
    if a.dtype != torch.float32:
        return torch.mm
    return _product(choose(_layout(a), _layout(b), False, torch.get_num_threads(), True), False)


def fastest(runs: Sequence[Callable[[], object]], margin: float = MARGIN) -> int:
    """Which of some runs is fastest; the first, unless another needs less than ``margin`` of its time."""
    times: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    for _ in range(9):
        for run, mine in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            mine.append(time.perf_counter() - start)
    # On a busy machine either measure alone can mislead.
    ratios = [
        statistics.median(t / u for t, u in zip(mine, times[0], strict=True)) for mine in times
    ]
    scores = [
        max(ratio, min(mine) / min(times[0])) for ratio, mine in zip(ratios, times, strict=True)
    ]
    best = min(range(len(runs)), key=scores.__getitem__)
    return best if scores[best] < margin else 0
