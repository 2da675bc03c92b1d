"""Random numbers of a whole batch, of which a process keeps those of its own rows."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses import FakeTensor

from pyrovae.particles.random_operators import (
    FACTORIES,
    IN_PLACE,
    LIKE,
    UNSTEADY,
    DispatchMode,
)

__all__ = ["Layout", "Place", "SharedDraws", "draw_layouts"]

_aten = torch.ops.aten
_STEADY = {
    _aten.bernoulli.default: 0.5,
    _aten.normal.Tensor_Tensor: 1.0,
    _aten.normal.Tensor_float: 0.0,
    _aten.normal.float_Tensor: 1.0,
    _aten.multinomial.default: 1.0,
}
"""Functions of tensors that take as many random numbers for any values, and a value that they
take.
"""


class Place(NamedTuple):
    """Rows ``first`` to ``first + num`` of a batch of ``total``; ``copies`` processes have them."""

    rank: int
    first: int
    num: int
    total: int
    copies: int = 1

    @property
    def rows(self) -> slice:
        """To select them."""
        return slice(self.first, self.first + self.num)


class Layout(NamedTuple):
    """Where the data lie in a random tensor: a dimension of ``outer`` x data x ``inner``.

    ``order`` is that of the dimensions in memory, which the draws of some samplers follow.
    """

    axis: int
    outer: int
    inner: int
    order: tuple[int, ...]


class _Shapes(DispatchMode):
    """Notes the shape of every random tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, ...] | None] = []
        self.orders: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            shape = _shape(func, args)
            strides = args[0].stride() if func in IN_PLACE else [0] * len(shape or ())
            self.found.append(shape)
            self.orders.append(tuple(sorted(range(len(strides)), key=lambda i: -strides[i])))
        return func(*args, **(kwargs or {}))


def draw_layouts(run: Callable[[int], Any], num_particles: int) -> list[Layout | None]:
    """The layouts of the random tensors of a function, in their order, from runs on a few data.

    Args:
        run: Runs the function on so many data.
        num_particles: K, which lies in front of the data where both make up one dimension.

    Raises:
        ValueError: If the runs differ in more than the size of one dimension of each tensor.
    """
    for size in (2, 3):
        run(size)  # first runs may have to find out how the programs broadcast
    few, more = _Shapes(), _Shapes()
    with few:
        run(2)
    with more:
        run(3)
    if len(few.found) != len(more.found):
        raise ValueError(
            f"The programs draw {len(few.found)} random tensors for two data and "
            f"{len(more.found)} for three, so their draws cannot be shared between processes. "
            "Train in one process."
        )
    every = zip(few.found, more.found, more.orders, strict=True)
    return [_layout(two, three, order, num_particles) for two, three, order in every]


def _layout(two: Any, three: Any, order: tuple[int, ...], num_particles: int) -> Layout | None:
    if two == three:
        return None
    axes = [i for i, (a, b) in enumerate(zip(two, three, strict=True)) if a != b]
    if len(axes) != 1 or 3 * two[axes[0]] != 2 * three[axes[0]]:
        raise ValueError(
            f"A random tensor of the programs has shape {two} for two data and {three} for three, "
            "so its rows cannot be shared between processes. Train in one process."
        )
    factor = two[axes[0]] // 2
    outer = num_particles if factor % num_particles == 0 else 1
    return Layout(axes[0], outer, factor // outer, order)


def _shape(func: Any, args: Any) -> tuple[int, ...] | None:
    """The shape of a random tensor, without the categories of a multinomial one."""
    if func in FACTORIES:
        return tuple(args[FACTORIES[func].size])
    if func is _aten.randperm.default:
        return (args[0],)
    tensor = next((a for a in args if isinstance(a, Tensor)), None)
    if tensor is None:
        return None
    return tuple(tensor.shape[:-1] if func is _aten.multinomial.default else tensor.shape)


class SharedDraws(DispatchMode):
    """While active, random tensors over the data hold what one process would draw for these rows.

    Each is drawn for the whole batch, and the rows at hand are kept, so that all processes go
    through the same random numbers and results do not depend on how many there are. Samplers that
    take more random numbers for some values than for others (gamma, Poisson, binomial, Dirichlet)
    draw other numbers in each process, from the same distribution.

    Args:
        layouts: Of the random tensors, in their order.
        place: The rows at hand.
    """

    def __init__(self, layouts: Sequence[Layout | None], place: Place):
        super().__init__()
        self.layouts, self.place, self.count = layouts, place, 0
        self.apart = False  # whether a sampler drew other numbers than one process would

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        super().__exit__(kind, error, traceback)
        if kind is None and self.count != len(self.layouts):
            raise ValueError(_CHANGED)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        if self.count == len(self.layouts):
            raise ValueError(_CHANGED)
        layout = self.layouts[self.count]
        self.count += 1
        if layout is None or self.place.num == self.place.total:
            return func(*args, **kwargs)
        if func in IN_PLACE:
            whole = func(self._empty(args[0], layout), *args[1:], **kwargs)
            return args[0].copy_(self._keep(whole, layout))
        if func in FACTORIES:
            place = FACTORIES[func].size
            shape = self._whole(args[place], layout)
            whole = func(*args[:place], shape, *args[place + 1 :], **kwargs)
            return self._keep(whole, layout).contiguous()
        if func in LIKE:
            empty = torch.empty(self._whole(args[0].shape, layout), **_kind(args[0], kwargs))
            whole = LIKE[func](empty, *args[1:], generator=kwargs.get("generator"))
            return self._keep(whole, layout).contiguous()
        if func in _STEADY:
            filled = [self._fill(a, layout, _STEADY[func]) for a in args]
            return self._keep(func(*filled, **kwargs), layout).contiguous()
        if func is _aten.native_dropout.default:
            return self._dropout(layout, *args)
        if func in UNSTEADY:
            return self._apart(func, args, kwargs)
        raise ValueError(
            f"The programs draw by {func}, whose numbers cannot be shared between processes. "
            "Train in one process."
        )

    def _whole(self, shape: Sequence[int], layout: Layout) -> list[int]:
        """The shape for the whole batch."""
        found = list(shape)
        found[layout.axis] = layout.outer * self.place.total * layout.inner
        return found

    def _empty(self, like: Tensor, layout: Layout) -> Tensor:
        """For the whole batch, its dimensions in the same order in memory."""
        kind: Any = {"dtype": like.dtype, "device": like.device}
        return torch.empty_permuted(self._whole(like.shape, layout), layout.order, **kind)

    def _keep(self, whole: Tensor, layout: Layout) -> Tensor:
        """The rows at hand of a tensor of the whole batch."""
        axis, outer, inner, _ = layout
        if outer == inner == 1:
            return whole.narrow(axis, self.place.first, self.place.num)
        split = whole.unflatten(axis, (outer, self.place.total, inner))
        return split.narrow(axis + 1, self.place.first, self.place.num).flatten(axis, axis + 2)

    def _fill(self, value: Any, layout: Layout, filling: float) -> Any:
        """A tensor over the rows at hand, filled up to the whole batch."""
        if not isinstance(value, Tensor):
            return value
        axis, outer, inner, _ = layout
        split = value.unflatten(axis, (outer, self.place.num, inner))
        sizes = list(split.shape)
        pieces = []
        for size in (self.place.first, self.place.total - self.place.first - self.place.num):
            sizes[axis + 1] = size
            pieces.append(split.new_full(sizes, filling))
        return torch.cat([pieces[0], split, pieces[1]], axis + 1).flatten(axis, axis + 2)

    def _dropout(self, layout: Layout, x: Tensor, share: float, train: Any) -> Any:
        ones = torch.ones(self._whole(x.shape, layout), dtype=x.dtype, device=x.device)
        mask = self._keep(_aten.native_dropout.default(ones, share, train)[1], layout).contiguous()
        return x * mask * (1 / (1 - share)), mask

    def _apart(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        """Draws from a generator of this process, seeded by one number that all processes draw."""
        self.apart = True
        first = next(a for a in args if isinstance(a, Tensor))
        if isinstance(first, FakeTensor):
            raise RuntimeError(f"{func} takes more random numbers for some values than for others")
        seed = int(torch.randint(2**40, ())) + self.place.rank * 2**40
        generator = torch.Generator(first.device).manual_seed(seed)
        return func(*args, **{**kwargs, "generator": generator})


_CHANGED = (
    "The programs do not draw the same random tensors at each step, so their draws cannot be "
    "shared between processes. Train in one process."
)


def _kind(like: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
    left = {"generator", "memory_format"}
    given = {k: v for k, v in kwargs.items() if v is not None and k not in left}
    return {"dtype": like.dtype, "device": like.device, **given}
