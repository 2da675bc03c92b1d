"""Random numbers that belong to a datum, not to its place in a batch or to how the work was cut."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

BLOCK = 128
"""Particles of one datum that share a generator's seed; pieces of work begin at multiples of it."""

_aten = torch.ops.aten
_IN_PLACE = {
    _aten.normal_.default,
    _aten.uniform_.default,
    _aten.exponential_.default,
    _aten.cauchy_.default,
    _aten.log_normal_.default,
    _aten.geometric_.default,
    _aten.bernoulli_.float,
}
_OF_TENSORS = {
    _aten.normal.Tensor_Tensor,
    _aten.normal.Tensor_float,
    _aten.normal.float_Tensor,
    _aten.bernoulli.default,
    _aten.poisson.default,
    _aten.binomial.default,
    _aten._standard_gamma.default,
    _aten._sample_dirichlet.default,
}
_FACTORIES = {_aten.rand.default: "uniform_", _aten.randn.default: "normal_"}
_LIKE = {_aten.rand_like.default: "uniform_", _aten.randn_like.default: "normal_"}


def data_keys(args: Sequence[Tensor], seed: int) -> np.ndarray:
    """``(B,)`` 64-bit keys made of seed, content of the datum in all arguments, and its number among equals."""
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


def fingerprint(args: Sequence[Tensor]) -> str:
    """Hash of a data set, its order included."""
    digest = hashlib.blake2b(digest_size=16)
    for arg in args:
        digest.update(str(tuple(arg.shape)).encode())
        for row in _bytes(arg):
            digest.update(row)
    return digest.hexdigest()


def _bytes(arg: Tensor) -> Any:
    # One precision, so that the same data are the same whatever the parameters' dtype.
    canonical = arg.detach().cpu().to(torch.float32 if arg.is_floating_point() else torch.int64)
    rows = canonical.reshape(len(canonical), -1).contiguous().numpy()
    return [memoryview(row).cast("B") if row.size else b"" for row in rows]


def _mix(keys: np.ndarray, *salts: int) -> np.ndarray:
    """Further keys from keys, by the finaliser of SplitMix64 (Steele et al., 2014)."""
    with np.errstate(over="ignore"):
        for salt in salts:
            keys = keys + np.uint64((salt + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF)
            keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            keys = keys ^ (keys >> np.uint64(31))
    return keys


def further(keys: np.ndarray, salt: int) -> np.ndarray:
    """Keys of other streams for the same data."""
    return _mix(keys, salt)


class DatumStreams(TorchDispatchMode):
    """While active, every random tensor over (particles, ..., data, ...) is filled datum by datum.

    The numbers depend on the datum's key, the particle's number, and how many random tensors were drawn before;
    neither on the other data nor on how many particles are drawn at once. Random tensors of another layout come
    from torch's global generator, seeded here for the piece of work and put back on leaving.

    Args:
        keys: ``(B,)``, from :func:`data_keys`.
        num_particles: K of this piece of work.
        start: The number of its first particle, a multiple of ``BLOCK``.
        axis: Of the data, in a tensor whose first axis is the particles'.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return (
            False  # else torch loads its compiler, which takes seconds, to keep it away from here
        )

    def __init__(self, keys: np.ndarray, num_particles: int, start: int = 0, axis: int = 1):
        super().__init__()
        self.keys, self.num_particles, self.start, self.axis = keys, num_particles, start, axis
        self.draws = 0
        self._generators: dict[torch.device, torch.Generator] = {}

    def __enter__(self) -> "DatumStreams":
        devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
        self._fork = torch.random.fork_rng(devices=devices)
        self._fork.__enter__()
        folded = np.bitwise_xor.reduce(self.keys) if len(self.keys) else np.uint64(0)
        torch.manual_seed(int(_mix(np.array([folded]), self.start)[0] >> np.uint64(1)))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._fork.__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        if func in _IN_PLACE and self._ours(args[0].shape):
            return self._fill(args[0], func, args[1:], kwargs)
        if func in _OF_TENSORS:
            leads = [a.shape[: self.axis + 1] for a in args if isinstance(a, Tensor)]
            if self._ours(leads[0]) and all(lead == leads[0] for lead in leads):
                return self._per_datum(func, args, kwargs)
        if func in _FACTORIES and self._ours(args[0]):
            out = torch.empty(args[0], **{k: v for k, v in kwargs.items() if k != "generator"})
            return self._fill(out, getattr(_aten, _FACTORIES[func]).default, (), {})
        if func in _LIKE and self._ours(args[0].shape):
            out = torch.empty_like(args[0], **kwargs)
            return self._fill(out, getattr(_aten, _LIKE[func]).default, (), {})
        if func is _aten.multinomial.default:
            return self._multinomial(func, args, kwargs)
        return func(*args, **kwargs)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers of the layout of ``like``, without the mode being active."""
        return self._fill(torch.empty_like(like), _aten.normal_.default, (), {})

    def uniform(self, like: Tensor) -> Tensor:
        """Numbers uniform in [0, 1), likewise."""
        return self._fill(torch.empty_like(like), _aten.uniform_.default, (), {})

    def _ours(self, shape: Sequence[int]) -> bool:
        return (
            len(shape) > self.axis
            and shape[0] == self.num_particles
            and shape[self.axis] == len(self.keys)
        )

    def _pieces(self, device: torch.device) -> Any:
        """(datum, slice of particles, generator) over all of this piece of work, for one random tensor."""
        generator = self._generators.setdefault(device, torch.Generator(device))
        self.draws += 1
        for first in range(0, self.num_particles, BLOCK):
            part = slice(first, min(first + BLOCK, self.num_particles))
            seeds = _mix(self.keys, self.draws, self.start + first) >> np.uint64(1)
            for datum, seed in enumerate(seeds.tolist()):
                generator.manual_seed(seed)
                yield datum, part, generator

    def _fill(self, out: Tensor, func: Any, args: tuple, kwargs: dict) -> Tensor:
        kwargs = {**kwargs, "generator": None}
        moved = out.movedim(self.axis, 0)
        buffer = torch.empty(moved.shape, dtype=out.dtype, device=out.device)
        for datum, part, generator in self._pieces(out.device):
            kwargs["generator"] = generator
            func(buffer[datum, part], *args, **kwargs)
        out.copy_(buffer.movedim(0, self.axis))
        return out

    def _per_datum(self, func: Any, args: tuple, kwargs: dict) -> Tensor:
        moved = [a.movedim(self.axis, 0) if isinstance(a, Tensor) else a for a in args]
        device = next(a.device for a in args if isinstance(a, Tensor))
        out: Any = None
        for datum, part, generator in self._pieces(device):
            piece = [a[datum, part] if isinstance(a, Tensor) else a for a in moved]
            piece = func(*piece, **{**kwargs, "generator": generator})
            if out is None:
                rest = piece.shape[1:]
                out = piece.new_empty(len(self.keys), self.num_particles, *rest)
            out[datum, part] = piece
        return out.movedim(0, self.axis)

    def _multinomial(self, func: Any, args: tuple, kwargs: dict) -> Tensor:
        """Rows are (particles, ..., data) with one draw each, or (..., data) with the particles as draws."""
        probs, num_draws, *more = args
        num_data, replacement = (
            len(self.keys),
            bool(more and more[0]) or kwargs.get("replacement", False),
        )
        if probs.dim() != 2 or num_data == 0 or probs.shape[0] % num_data:
            return func(*args, **kwargs)
        rows = probs.reshape(-1, num_data, probs.shape[-1])
        as_rows = num_draws == 1 and rows.shape[0] % self.num_particles == 0
        as_draws = not as_rows and num_draws == self.num_particles and replacement
        if not (as_draws or as_rows):
            return func(*args, **kwargs)
        out = torch.empty((*rows.shape[:2], num_draws), dtype=torch.long, device=probs.device)
        inner = rows.shape[0] // self.num_particles
        for datum, part, generator in self._pieces(probs.device):
            if as_rows:
                chosen = slice(part.start * inner, part.stop * inner)
                out[chosen, datum] = func(rows[chosen, datum], 1, True, generator=generator)
            else:
                size = part.stop - part.start
                out[:, datum, part] = func(rows[:, datum], size, True, generator=generator)
        return out.reshape(-1, num_draws)
