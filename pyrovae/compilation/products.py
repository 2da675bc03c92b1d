"""Products of a batch and a weight by oneDNN, where its kernels are the faster ones.

On AMD processors with AVX-512, oneDNN multiplies large float32 matrices faster than torch's default
library does. The rule looks at the processor and at the operands' layout, never at a clock, so that
the same program gives the same bits at each run.
"""

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

__all__ = ["register", "use_onednn"]

aten = torch.ops.aten

FEWEST_MULTIPLICATIONS = 2**23
"""Of a product; with fewer, calling oneDNN costs more than its kernels gain."""


def use_onednn(module: fx.GraphModule) -> int:
    """Let oneDNN compute the large float32 products of a batch and a weight on CPU, in place, and
    the ReLU that follows one.

    A product counts where its left operand is stored row by row and it takes
    ``FEWEST_MULTIPLICATIONS``; the gradient of a weight, whose left operand is a transpose, stays
    as it is.

    Args:
        module: A captured graph of ATen calls.

    Returns:
        How many products have changed.
    """
    return _rewrite(module) if _pays() else 0


def _rewrite(module: fx.GraphModule) -> int:
    changed = 0
    for node in list(module.graph.nodes):
        if node.op != "call_function" or node.kwargs:
            continue
        if node.target is aten.mm.default and _fits(*node.args):
            node.target = _operators().onednn_mm.default
        elif node.target is aten.addmm.default and _fits(*node.args[1:], bias=node.args[0]):
            node.target = _operators().onednn_addmm.default
            _take_in_relu(node)
        else:
            continue
        changed += 1
    if changed:
        module.recompile()
    return changed


def _take_in_relu(node: fx.Node) -> None:
    """Let the product end with the ReLU that alone reads it: the same values, written once."""
    users = list(node.users)
    if len(users) == 1 and users[0].target is aten.relu.default:
        node.target = _operators().onednn_addmm_relu.default
        users[0].replace_all_uses_with(node)
        node.graph.erase_node(users[0])


def _fits(left: Any, right: Any, bias: Any = None) -> bool:
    a, b = (node.meta.get("val") if isinstance(node, fx.Node) else None for node in (left, right))
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return False
    if bias is not None:
        shift = bias.meta.get("val") if isinstance(bias, fx.Node) else None
        if not isinstance(shift, Tensor) or shift.shape != (b.shape[1],):
            return False
    on_cpu = a.device.type == b.device.type == "cpu"
    single = a.dtype == b.dtype == torch.float32
    large = a.numel() * b.shape[1] >= FEWEST_MULTIPLICATIONS
    return on_cpu and single and large and a.stride(1) == 1 and a.shape[1] > 1


def _available() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@functools.cache
def _pays() -> bool:
    """Whether this processor is of AMD with AVX-512, and this torch has oneDNN."""
    if not _available() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:  # no Linux
        return False


@functools.cache
def _operators() -> Any:
    """The products under names of our own: Inductor takes oneDNN's own only
    with constant weights.
    """
    library = torch.library.Library("pyrovae", "FRAGMENT")
    library.define("onednn_mm(Tensor a, Tensor b) -> Tensor")
    library.define("onednn_addmm(Tensor bias, Tensor a, Tensor b) -> Tensor")
    library.define("onednn_addmm_relu(Tensor bias, Tensor a, Tensor b) -> Tensor")
    library.impl("onednn_mm", lambda a, b: _multiply(None, a, b), "CPU")
    library.impl("onednn_addmm", _multiply, "CPU")
    library.impl("onednn_addmm_relu", functools.partial(_multiply, then="relu"), "CPU")
    library.impl("onednn_mm", lambda a, b: a.new_empty(a.shape[0], b.shape[1]), "Meta")
    for name in ("onednn_addmm", "onednn_addmm_relu"):
        library.impl(name, lambda bias, a, b: a.new_empty(a.shape[0], b.shape[1]), "Meta")
    _libraries.append(library)
    return torch.ops.pyrovae


def register() -> None:
    """Let torch know the products, for code that names them."""
    _operators()


def _multiply(bias: Tensor | None, a: Tensor, b: Tensor, then: str = "none") -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(a, b.t(), bias, then, [], "")


_libraries: list[Any] = []  # an operator exists as long as its library's object
