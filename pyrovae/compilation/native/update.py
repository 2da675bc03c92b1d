"""Adam's update by a kernel of our own, which forms the gradients of dense layers as it uses them."""

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.autograd.graph import increment_version

from pyrovae.compilation import native
from pyrovae.compilation.capture import Graph
from pyrovae.compilation.choices import remembered
from pyrovae.compilation.fused import is_decoupled
from pyrovae.compilation.matmul import fastest, fastest_product
from pyrovae.compilation.update import Held

__all__ = ["NativeUpdate"]

aten = torch.ops.aten

SMALLEST = 1e6  # floating-point operations of a product worth fusing; below it nothing is gained
# Of the fused time: a measurement in the cache does not see what a gradient costs that leaves it.
_MARGIN = 0.8
_ADAM = {torch.float32: "adam_float", torch.float64: "adam_double"}


class _Parameter(ctypes.Structure):
    """As in ``adam.cpp``."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("value", "mean", "square", "largest", "step")),
        *((name, ctypes.c_void_p) for name in ("gradient", "left", "right")),
        *((name, ctypes.c_int64) for name in ("rows", "columns", "inner")),
        *((name, ctypes.c_double) for name in ("rate", "beta1", "beta2", "epsilon", "decay")),
        *((name, ctypes.c_int64) for name in ("decoupled", "maximize")),
    ]


class NativeUpdate(Held):
    """One step of Adam for all parameters by one call, after a compiled graph has made the gradients.

    As :class:`~pyrovae.compilation.update.Update`, but nothing is frozen: settings are read at each step. A gradient
    :math:`L^\\top R` of few data may come as its factors (:meth:`factor`), which saves writing and reading it.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer], parameters: Sequence[Tensor]):
        super().__init__(optimizers, parameters)
        self.factored = [False] * len(parameters)
        self._kernel = getattr(native.kernels(), _ADAM[parameters[0].dtype])
        self._arrange()

    @staticmethod
    def fits(optimizers: Sequence[torch.optim.Optimizer], parameters: Sequence[Tensor]) -> bool:
        """Whether the kernel can take the optimisers' steps."""
        if not Held.fits(optimizers, parameters) or parameters[0].device.type != "cpu":
            return False
        kind = parameters[0].dtype
        return (
            kind in _ADAM
            and all(_is_dense(p) for p in parameters)
            and all(
                _suits(o.state[p], kind) for o in optimizers for p in parameters if p in o.state
            )
            and native.kernels() is not None
        )

    def _arrange(self) -> None:
        self._table = (_Parameter * len(self.parameters))()
        self._address = ctypes.addressof(self._table)
        self._settings: list[tuple[Any, ...]] = []
        for row, parameter, state in zip(self._table, self.parameters, self.states, strict=True):
            row.value, row.step = parameter.data_ptr(), state["step"].data_ptr()
            row.mean, row.square = state["exp_avg"].data_ptr(), state["exp_avg_sq"].data_ptr()
            matrix = parameter.dim() == 2
            row.rows, row.columns = parameter.shape if matrix else (parameter.numel(), 1)

    def ready(self) -> bool:
        """Take over the optimisers' settings, and state that was loaded; False where these are not Adam's steps."""
        if self.moved():
            if not self.fits(self.optimizers, self.parameters):
                return False
            self._take()
            self._arrange()
        settings = [_settings(group) for group in self.distinct]
        if settings != self._settings:
            decoupled = is_decoupled(self.optimizers[0])
            for row, group, state in zip(self._table, self.groups, self.states, strict=True):
                row.rate, (row.beta1, row.beta2), row.epsilon, row.decay, largest, row.maximize = (
                    _settings(group)
                )
                row.decoupled = decoupled
                row.largest = state["max_exp_avg_sq"].data_ptr() if largest else None
            self._settings = settings
        self.announce()
        return True

    def factor(self, graph: Graph, first: int) -> None:
        """Let a graph give the factors of gradients where that is faster; gradients start at output ``first``."""
        nodes = graph.module.graph
        (output,) = nodes.find_nodes(op="output")
        results: Any = list(output.args[0])
        constants = set(nodes.find_nodes(op="placeholder")[: len(graph.constants)])
        given = results[:first]
        for i, gradient in enumerate(results[first:]):
            factors = _factors(gradient, constants)
            self.factored[i] = factors is not None and _pays(
                *(factor.meta["val"] for factor in factors)
            )
            given += factors if factors is not None and self.factored[i] else (gradient,)
        output.args = (tuple(given),)
        nodes.eliminate_dead_code()
        graph.module.recompile()

    def finish(self, outputs: Sequence[Tensor]) -> None:
        """Take the step, from what the graph gave for the gradients."""
        given = iter(outputs)
        held = []
        for row, factored in zip(self._table, self.factored, strict=True):
            if factored:
                left, right = next(given).contiguous(), next(given).contiguous()
                held += left, right
                row.gradient, row.left, row.right = None, left.data_ptr(), right.data_ptr()
                row.inner = left.shape[0]
            else:
                gradient = next(given).contiguous()
                held.append(gradient)
                row.gradient = gradient.data_ptr()
        self._kernel(self._address, len(self._table), torch.get_num_threads())
        # Caches and autograd go by a tensor's version, which a kernel's writes leave as it was.
        increment_version(self.parameters)


def _settings(group: dict[str, Any]) -> tuple[Any, ...]:
    return (
        group["lr"], group["betas"], group["eps"], group["weight_decay"], group["amsgrad"], group["maximize"]
    )  # fmt: skip


def _is_dense(tensor: Tensor) -> bool:
    return tensor.is_contiguous() and tensor.layout is torch.strided


def _suits(state: dict[str, Any], kind: torch.dtype) -> bool:
    """Whether a parameter's state is laid out as the kernel reads it."""
    return not state or (
        state["step"].dtype == torch.float32
        and all(_is_dense(t) and t.dtype == kind for name, t in state.items() if name != "step")
    )


def _factors(gradient: fx.Node, constants: set[fx.Node]) -> tuple[fx.Node, fx.Node] | None:
    """``left`` and ``right`` of a gradient ``mm(left.t(), right)`` that nothing else uses."""
    if gradient.target is not aten.mm.default or len(gradient.users) > 1:
        return None
    transposed, right = gradient.args
    if not isinstance(transposed, fx.Node) or transposed.target is not aten.t.default:
        return None
    left = transposed.args[0]
    factors = left, right
    for factor in factors:
        if not isinstance(factor, fx.Node) or not isinstance(factor.meta.get("val"), Tensor):
            return None
        source: Any = factor
        while (
            getattr(source.target, "is_view", False) or source.target is aten._unsafe_view.default
        ):
            source = source.args[0]
        if source in constants:  # the update may change it before it is read
            return None
    return factors  # type: ignore[return-value]


def _pays(left: Tensor, right: Tensor) -> bool:
    """Whether the kernel does better on the factors than on their product; both without data."""
    library = native.kernels()
    (inner, rows), columns = left.shape, right.shape[1]
    if library is None or columns < library.narrowest() or 2.0 * inner * rows * columns < SMALLEST:
        return False
    if not (left.is_contiguous() and right.is_contiguous()):
        return False
    return _fused_is_faster(rows, columns, inner, left.dtype, torch.get_num_threads())


@functools.cache
def _fused_is_faster(rows: int, columns: int, inner: int, dtype: torch.dtype, threads: int) -> bool:
    """Unless a measurement of a few milliseconds is clearly against it."""
    asked = rows, columns, inner, dtype
    return remembered(("update", *map(str, asked), threads), lambda: _measured(*asked))


def _measured(rows: int, columns: int, inner: int, dtype: torch.dtype) -> bool:
    left, right = (torch.full((inner, n), 0.5, dtype=dtype) for n in (rows, columns))
    parameter = torch.zeros(rows, columns, dtype=dtype, requires_grad=True)
    update = NativeUpdate([torch.optim.Adam([parameter])], [parameter])
    update.ready()
    product = fastest_product(left.t(), right)

    def apart() -> None:
        update.factored = [False]
        update.finish([product(left.t(), right)])

    def fused() -> None:
        update.factored = [True]
        update.finish([left, right])

    with torch.no_grad():
        return fastest([fused, apart], _MARGIN) == 0
