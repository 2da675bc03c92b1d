"""Random numbers that belong to a datum, whatever its place in a batch and the size of the pieces
of work.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.data.rows import Rows
from pyrovae.evidence import counters
from pyrovae.particles.random_operators import (
    FACTORIES,
    IN_PLACE,
    LIKE,
    SAMPLERS,
    DispatchMode,
)

BLOCK = 128
"""Particles of one datum that share the seed of a generator, where draws need one. Pieces of work
begin at multiples of it.
"""

VERSION = 3
"""Is raised when the same keys give other numbers, so that old parts of an estimate are not mixed
with new ones.
"""

_aten = torch.ops.aten
_FLATTEN = {_aten.view.default, _aten._unsafe_view.default}
_NUMBERED = {_aten.normal_.default, _aten.uniform_.default}
"""What fills a tensor by keys and counters."""


def data_keys(args: Sequence[Tensor | Rows], seed: int) -> np.ndarray:
    """``(B,)`` 64-bit keys, made of the seed, the datum in all arguments, and its number among
    equal data.
    """
    met: Counter[bytes] = Counter()
    keys = np.empty(len(args[0]), dtype=np.uint64)
    columns = [_bytes(arg) for arg in args]
    for i, rows in enumerate(zip(*columns, strict=True)):
        digest = hashlib.blake2b(digest_size=16)
        for row in rows:
            digest.update(row)
        content = digest.digest()
        number = met[content]
        met[content] += 1
        salted = hashlib.blake2b(content, digest_size=8, key=f"{seed}:{number}".encode())
        keys[i] = int.from_bytes(salted.digest(), "little")
    return keys


def fingerprint(args: Sequence[Tensor | Rows], floating: torch.dtype = torch.float32) -> str:
    """Hash of a data set, its order included, at this precision of floating-point numbers.

    One precision, so that the same data are the same whatever the parameters' dtype.
    """
    digest = hashlib.blake2b(digest_size=16)
    for arg in args:
        digest.update(str(tuple(arg.shape)).encode())
        for row in _bytes(arg, floating):
            digest.update(row)
    return digest.hexdigest()


def _bytes(arg: Tensor | Rows, floating: torch.dtype = torch.float32) -> Iterator[Any]:
    """The content of each datum."""
    for _, piece in arg.pieces() if isinstance(arg, Rows) else [(None, arg)]:
        kind = floating if piece.is_floating_point() else torch.int64
        canonical = piece.detach().cpu().to(kind)
        for row in canonical.reshape(len(canonical), -1).contiguous().numpy():
            yield memoryview(row).cast("B") if row.size else b""


def mix_keys(keys: np.ndarray, *salts: int) -> np.ndarray:
    """Other keys made of keys and numbers, each a step and the finaliser of SplitMix64."""
    for salt in salts:
        with np.errstate(over="ignore"):
            keys = keys + np.uint64((salt + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF)
        keys = counters.mix(torch.from_numpy(keys.view(np.int64))).numpy().view(np.uint64)
    return keys


class DatumStreams(DispatchMode):
    """While active, every random tensor over (particles, ..., data, ...) is filled by the data's
    streams.

    The numbers depend on the datum's key, the particle's number, and how many random tensors were
    drawn before. They depend neither on the other data nor on how many particles are drawn at once.
    A tensor over (..., data, ...) that lacks the particles is filled so too. Normal and uniform
    numbers are those of :mod:`~pyrovae.evidence.counters`, made for all data at once; others come
    from a generator that is seeded for each datum. Other random tensors come from torch's global
    generator, which is seeded here for the piece of work and put back on leaving.

    Args:
        keys: ``(B,)``, from :func:`data_keys`.
        num_particles: K of this piece of work.
        start: The number of its first particle, a multiple of ``BLOCK``.
        axis: Dimension of the data in a tensor whose first dimension is that of the particles.
    """

    def __init__(self, keys: np.ndarray, num_particles: int, start: int = 0, axis: int = 1):
        super().__init__()
        self.keys, self.num_particles, self.start, self.axis = keys, num_particles, start, axis
        self.draws = 0
        self.separate = False  # whether a tensor lacked the particles, as in a run for each of them
        self._generators: dict[torch.device, torch.Generator] = {}
        self._counters: dict[tuple[torch.device, int, int], Tensor] = {}
        self._flattened: tuple[int, torch.Size, torch.Size] | None = None

    def __enter__(self) -> "DatumStreams":
        devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
        self._fork = torch.random.fork_rng(devices=devices)
        self._fork.__enter__()
        folded = np.bitwise_xor.reduce(self.keys) if len(self.keys) else np.uint64(0)
        torch.manual_seed(int(mix_keys(np.array([folded]), self.start)[0] >> np.uint64(1)))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._fork.__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            out = func(*args, **kwargs)
            if func in _FLATTEN and out.dim() == 2:
                self._flattened = out.data_ptr(), out.shape, args[0].shape
            return out
        if func in IN_PLACE and self._place(args[0].shape):
            return self._fill(args[0], func, args[1:], kwargs)
        if func in SAMPLERS:
            shapes = [a.shape for a in args if isinstance(a, Tensor)]
            place = self._place(shapes[0])
            if place and all(shape == shapes[0] for shape in shapes):
                return self._per_datum(func, args, kwargs, place)
        kind = {name: value for name, value in kwargs.items() if name != "generator"}
        if func in FACTORIES:
            fill, size, dtype = FACTORIES[func]
            if self._place(args[size]):
                kind["dtype"] = kind.get("dtype") or dtype
                return self._fill(torch.empty(args[size], **kind), fill, args[:size], {})
        if func in LIKE and self._place(args[0].shape):
            return self._fill(torch.empty_like(args[0], **kind), LIKE[func], args[1:], {})
        if func is _aten.multinomial.default:
            return self._multinomial(func, args, kwargs)
        return func(*args, **kwargs)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers of the layout of ``like``, without the mode being active."""
        return self._fill(torch.empty_like(like), _aten.normal_.default, (), {})

    def uniform(self, like: Tensor) -> Tensor:
        """Numbers uniform in [0, 1), likewise."""
        return self._fill(torch.empty_like(like), _aten.uniform_.default, (), {})

    def numbered(
        self, num_words: int, device: torch.device, *, particles: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Keys ``(B,)`` of the next random tensor, and counters ``(K, W)``, for
        :mod:`~pyrovae.evidence.counters`.
        """
        self._begin(particles)
        keys = torch.from_numpy(mix_keys(self.keys, self.draws).view(np.int64)).to(device)
        num = self.num_particles if particles else 1
        place = device, num, num_words
        if place not in self._counters:
            self._counters[place] = counters.counters(num, self.start, num_words, device)
        return keys, self._counters[place]

    def _place(self, shape: Sequence[int]) -> tuple[int, bool] | None:
        """The dimension of the data, and whether the first one is that of the particles; None for
        another layout.
        """
        num_data, axis = len(self.keys), self.axis
        if len(shape) > axis and shape[0] == self.num_particles and shape[axis] == num_data:
            return axis, True
        if len(shape) >= axis and shape[axis - 1] == num_data:
            return axis - 1, False
        return None

    def _begin(self, particles: bool) -> None:
        """Count one more random tensor."""
        self.draws += 1
        self.separate |= not particles and self.num_particles > 1

    def _pieces(self, device: torch.device, particles: bool = True) -> Any:
        """(index of a datum and some particles, generator) over a random tensor with the data moved
        in front.
        """
        generator = self._generators.setdefault(device, torch.Generator(device))
        self._begin(particles)
        for first in range(0, self.num_particles if particles else 1, BLOCK):
            part = slice(first, min(first + BLOCK, self.num_particles))
            seeds = mix_keys(self.keys, self.draws, self.start + first) >> np.uint64(1)
            for datum, seed in enumerate(seeds.tolist()):
                generator.manual_seed(seed)
                yield (datum, part) if particles else (datum,), generator

    def _fill(self, out: Tensor, func: Any, args: tuple, kwargs: dict) -> Tensor:
        axis, particles = self._place(out.shape) or (self.axis, True)
        if func in _NUMBERED and out.is_floating_point():
            return out.copy_(self._scaled(out, func, args, kwargs, axis, particles))
        kwargs = {**kwargs, "generator": None}
        moved = out.movedim(axis, 0)
        buffer = torch.empty(moved.shape, dtype=out.dtype, device=out.device)
        for index, generator in self._pieces(out.device, particles):
            kwargs["generator"] = generator
            func(buffer[index], *args, **kwargs)
        out.copy_(buffer.movedim(0, axis))
        return out

    def _scaled(
        self, like: Tensor, func: Any, args: tuple, kwargs: dict, axis: int, particles: bool
    ) -> Tensor:
        """Normal or uniform numbers of given mean and deviation, or bounds."""
        names = "mean", "std"
        rest = [n for i, n in enumerate(like.shape) if i != axis and not (particles and i == 0)]
        if func is _aten.normal_.default:
            num, draw = counters.num_words(math.prod(rest), like.dtype), counters.normal
        else:
            num, draw, names = math.prod(rest), counters.uniform, ("from", "to")
        first, second = (*args, *(0.0, 1.0)[len(args) :])
        first, second = kwargs.get(names[0], first), kwargs.get(names[1], second)
        found = draw(*self.numbered(num, like.device, particles=particles), rest, like.dtype)
        found = found.movedim(1, axis) if particles else found[0].movedim(0, axis)
        if (first, second) == (0.0, 1.0):
            return found
        return first + (second if func is _aten.normal_.default else second - first) * found

    def _per_datum(self, func: Any, args: tuple, kwargs: dict, place: tuple[int, bool]) -> Tensor:
        axis, particles = place
        moved = [a.movedim(axis, 0) if isinstance(a, Tensor) else a for a in args]
        tensor = next(a for a in moved if isinstance(a, Tensor))
        out: Any = None
        for index, generator in self._pieces(tensor.device, particles):
            piece = [a[index] if isinstance(a, Tensor) else a for a in moved]
            piece = func(*piece, **{**kwargs, "generator": generator})
            out = piece.new_empty(tensor.shape) if out is None else out
            out[index] = piece
        return out.movedim(0, axis)

    def _multinomial(self, func: Any, args: tuple, kwargs: dict) -> Tensor:
        """Categorical draws. The rows of probabilities were flattened from (particles, ..., data,
        ...), with one draw each, or from (..., data, ...), with the particles as draws.
        """
        probs, num_draws, *more = args
        replacement = bool(more and more[0]) or kwargs.get("replacement", False)
        shape = probs.shape[:-1]
        if self._flattened is not None and self._flattened[:2] == (probs.data_ptr(), probs.shape):
            shape = self._flattened[2][:-1]
        place = self._place(shape) if num_draws == 1 else None
        if place is None and num_draws == self.num_particles and replacement:
            # Without the particles, inner plates may be missing too.
            same = [i for i, size in enumerate(shape[: self.axis]) if size == len(self.keys)]
            place = (same[-1], False) if same else None
        if place is None:
            return func(*args, **kwargs)
        axis, particles = place
        rows = probs.reshape(*shape, -1).movedim(axis, 0)
        out = torch.empty((*rows.shape[:-1], num_draws), dtype=torch.long, device=probs.device)
        if particles or num_draws == 1:
            for index, generator in self._pieces(probs.device, particles):
                some = rows[index]
                drawn = func(some.reshape(-1, rows.shape[-1]), 1, True, generator=generator)
                out[index] = drawn.reshape(*some.shape[:-1], 1)
        else:
            for (datum, part), generator in self._pieces(probs.device):
                some = rows[datum].reshape(-1, rows.shape[-1])
                drawn = func(some, part.stop - part.start, True, generator=generator)
                out[datum][..., part] = drawn.reshape(*rows.shape[1:-1], -1)
        return out.movedim(0, axis).reshape(-1, num_draws)
