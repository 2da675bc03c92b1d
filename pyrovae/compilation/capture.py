"""A function of tensors as one ATen graph: traced through Pyro's handlers once, replayed without
Python.
"""

import random
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, fx
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.autograd.graph import increment_version
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from pyrovae.compilation.frozen import Frozen

__all__ = ["Graph", "Uncapturable", "capture", "decomposed", "layout_of"]

aten = torch.ops.aten


class Uncapturable(RuntimeError):
    """The function does not make one fixed graph. The message says why."""


class Graph:
    """What :func:`capture` made: calling it runs the graph, without gradients.

    Tensors that the function closed over (parameters, buffers, data) are read where they are at
    each call, and changed in place where the function changed them.

    Attributes:
        module: The graph; its placeholders are the closed-over tensors, then the inputs.
        constants: The closed-over tensors.
        run: What a call executes: the module, or what a compiler made of it.
        kind: ``"captured"``, ``"compiled"`` or ``"cuda graph"``.
        layouts: What a compiled graph takes the layouts of its constants to be.
        draws: Whether it draws random numbers.
        written: Those of the constants that a call changes in place.
    """

    def __init__(self, module: fx.GraphModule, constants: list[Tensor]):
        self.module, self.constants = module, constants
        self.run: Callable[..., Sequence[Tensor]] = module
        self.kind = "captured"
        self.layouts: list[Any] | None = None
        self._addresses: list[int] = []
        targets = [getattr(node.target, "tags", ()) for node in module.graph.nodes]
        self.draws = any(torch.Tag.nondeterministic_seeded in tags for tags in targets)
        names = {p.name: tensor for p, tensor in zip(module.graph.nodes, constants, strict=False)}
        self.written = [names[name] for name in _written(module.graph) if name in names]

    def moved(self) -> bool:
        """Whether a constant no longer has the layout that a compiled graph relies on."""
        addresses = [tensor.data_ptr() for tensor in self.constants] if self.layouts else []
        if addresses == self._addresses:
            return False
        self._addresses = addresses
        return [layout_of(tensor) for tensor in self.constants] != self.layouts

    def become(self, other: "Graph") -> None:
        """Be another graph, for whoever holds this one."""
        self.__dict__.update(other.__dict__)

    def __call__(self, *inputs: Tensor) -> Sequence[Tensor]:
        # What a mode makes of the function, such as another precision, is in the graph already.
        with torch.no_grad(), torch._C.DisableTorchFunction():
            outputs = self.run(*self.constants, *inputs)
        if self.kind != "captured" and self.written:
            # Autograd and caches go by a tensor's version, which compiled kernels leave as it was.
            increment_version(self.written)
        return outputs


def capture(
    function: Callable[..., tuple[Tensor, ...]],
    inputs: Sequence[Tensor],
    *settings: Any,
) -> Graph:
    """Trace ``function(*inputs)``, gradients within it included, into a :class:`Graph`.

    Nothing is computed: tracing runs on tensors without data, so neither the random state nor any
    buffer changes. Random draws stay draws. Shapes, Python numbers and branches are frozen as they
    are now. Validation of distributions is off meanwhile.

    Args:
        function: From tensors to a tuple of tensors.
        inputs: Examples of its arguments.
        settings: Objects that the function works with, whose attributes it must leave alone.

    Raises:
        Uncapturable: If the function reads the value of a tensor (data-dependent control flow,
            ``.item()``), draws from a generator other than torch's, or stores what it computed.

    Example:
        >>> graph = capture(lambda x: (x.sin() + x,), [torch.ones(3)])
        >>> torch.equal(graph(torch.zeros(3))[0], torch.zeros(3))
        True
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    before, watch, generators = Frozen(*settings, deep=False), _Watch(), _python_generators()
    if before.unfit:
        raise Uncapturable(before.unfit)

    def watched(*arguments: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad(), watch:
            return function(*arguments)

    try:
        with pyro.validation_enabled(False):
            traced = make_fx(watched, tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs)
        changed = before.changed()
    except Exception as error:
        raise Uncapturable(_reason(error)) from error
    finally:
        before.restore()
        watch.restore()
    if changed:
        raise Uncapturable(
            f"running the programs changes {changed}, which a graph would not repeat"
        )
    if generators != _python_generators():
        raise Uncapturable(
            "the programs draw from Python's or numpy's generator; use torch's, which stays live"
        )
    constants = _lift(traced)
    _tidy(traced)
    return Graph(traced, constants)


def decomposed(
    graph: Graph, inputs: Sequence[Tensor], decompositions: Mapping[Any, Callable[..., Any]]
) -> Graph:
    """The same graph with tensor operations in place of some operators; the given one stays."""
    from torch.fx.experimental.proxy_tensor import make_fx

    arguments = [tensor.detach() for tensor in (*graph.constants, *inputs)]
    with torch.no_grad():
        traced = make_fx(
            graph.module, decomposition_table=dict(decompositions), tracing_mode="fake"
        )(*arguments)
    constants = [*_lift(traced), *graph.constants]
    _tidy(traced)
    return Graph(traced, constants)


class _Watch(TorchDispatchMode):
    """Stands over a trace, where tensors with data meet those without.

    The tracer computes on single numbers that the function closes over and would let it read the
    result, which the graph would then keep for ever; reading whatever depends on such a tensor is
    refused here. It also changes tensors with data in place where nothing without data enters
    (``buffer.mul_(0.9)``); :meth:`restore` undoes that.
    """

    def __init__(self) -> None:
        super().__init__()
        self.derived: dict[int, Tensor] = {}  # holds them too, so that no id comes twice
        self.written: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        lifted = func in (aten.lift_fresh_copy.default, aten.lift_fresh.default)
        depends = not lifted and any(
            id(t) in self.derived or not isinstance(t, FakeTensor) for t in inputs
        )
        if depends and torch.Tag.data_dependent_output in func.tags:
            raise Uncapturable(f"it reads the value of a tensor ({func})")
        if func._schema.is_mutable:
            written = [
                a for a, s in zip(args, func._schema.arguments, strict=False) if _is_written(s)
            ]
            self._keep([leaf for leaf in pytree.tree_leaves(written) if isinstance(leaf, Tensor)])
        outputs = func(*args, **(kwargs or {}))
        if depends:
            leaves = pytree.tree_leaves(outputs)
            self.derived.update((id(leaf), leaf) for leaf in leaves if isinstance(leaf, Tensor))
        return outputs

    def _keep(self, targets: list[Tensor]) -> None:
        with _disable_current_modes():
            known = [tensor for tensor, _ in self.written]
            for tensor in targets:
                if not isinstance(tensor, FakeTensor) and not any(tensor is k for k in known):
                    self.written.append((tensor, tensor.detach().clone()))

    def restore(self) -> None:
        """Give tensors with data that the trace changed their values back."""
        with torch.no_grad():
            for tensor, value in self.written:
                tensor.copy_(value)


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _python_generators() -> tuple[Any, ...]:
    """Where the generators stand that are not torch's."""
    numpy: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    return random.getstate(), numpy["state"]["pos"], numpy["has_gauss"]


def _reason(error: Exception) -> str:
    """One line, with the place in the caller's code where there is one."""
    text = str(error).strip().split("\n")[0] or type(error).__name__
    dependent = type(error).__name__.startswith(("DataDependent", "GuardOnDataDependent"))
    if dependent or "trying to get value out of a tracing tensor" in text:
        text = (
            "it reads the value of a tensor (.item(), bool(tensor) or data-dependent control flow)"
        )
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename
    ]
    frames = [f for f in frames if "/pyrovae/" not in f.filename or "/tests/" in f.filename]
    return text + (f", at {frames[-1].filename}:{frames[-1].lineno}" if frames else "")


def _lift(module: fx.GraphModule) -> list[Tensor]:
    """Turn tensors that the graph holds into its first placeholders, and hand them back."""
    graph, held, targets, fake = module.graph, {}, set(), FakeTensorMode()
    start = next(iter(graph.nodes))
    for node in list(graph.nodes):
        if node.op != "get_attr":
            continue
        tensor = getattr(module, node.target)
        if not isinstance(tensor, Tensor):
            raise Uncapturable(f"the programs use a {type(tensor).__name__} of their own")
        if id(tensor) not in held:
            with graph.inserting_before(start):
                held[id(tensor)] = (graph.placeholder(f"closed_{len(held)}"), tensor)
            # torch 2.6 notes no layout at what a graph holds.
            held[id(tensor)][0].meta["val"] = fake.from_tensor(tensor.detach())
        node.replace_all_uses_with(held[id(tensor)][0])
        graph.erase_node(node)
        targets.add(node.target)
    for target in targets:
        delattr(module, target)
    graph.eliminate_dead_code()
    kept = []
    for placeholder, tensor in held.values():
        if placeholder.users:
            kept.append(tensor)
        else:
            graph.erase_node(placeholder)
    return kept


def _tidy(module: fx.GraphModule) -> None:
    """Drop views that change nothing and double transposes, which cost a dispatch each."""
    graph = module.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or not node.args or not isinstance(node.args[0], fx.Node):
            continue
        source = node.args[0]
        if node.target is aten.t.default and source.target is aten.t.default:
            node.replace_all_uses_with(source.args[0])
        elif node.target in (aten.alias.default, aten.detach.default) or (
            node.target in (aten.view.default, aten.expand.default, aten._unsafe_view.default)
            and _same_layout(node, source)
        ):
            node.replace_all_uses_with(source)
    graph.eliminate_dead_code()
    graph.lint()
    module.recompile()


def _written(graph: fx.Graph) -> list[str]:
    """Placeholders that in-place operations change, themselves or through views."""
    found: dict[str, None] = {}
    for node in graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            continue
        # Changes running statistics, and its schema does not say so.
        silent = "batch_norm" in schema.name
        for target, argument in zip(node.args, schema.arguments, strict=False):
            if not (silent or _is_written(argument)):
                continue
            for each in target if isinstance(target, list | tuple) else (target,):
                while isinstance(each, fx.Node) and each.op != "placeholder" and each.args:
                    each = each.args[0]
                if isinstance(each, fx.Node) and each.op == "placeholder":
                    found[each.name] = None
    return list(found)


def layout_of(tensor: Tensor) -> tuple[Any, ...]:
    """What a graph depends on of a tensor that it is called with."""
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def _same_layout(left: fx.Node, right: fx.Node) -> bool:
    a, b = left.meta.get("val"), right.meta.get("val")
    return isinstance(a, Tensor) and isinstance(b, Tensor) and layout_of(a) == layout_of(b)
