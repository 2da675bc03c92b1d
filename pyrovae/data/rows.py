"""Data of which some rows can be read without the others in memory."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.data.arrays import as_tensor, check_dtype, dtype_of

__all__ = ["FileRows", "IndexedRows", "Rows", "generator_of", "is_small", "rows_of"]

IN_MEMORY = 2**28
"""Bytes up to which rows are read into memory at once, since steps on tensors are faster."""
_PIECE = 2**24  # bytes of a piece of pieces()


def is_small(num_bytes: int) -> bool:
    """Whether data of so many bytes are read into memory at once."""
    return num_bytes <= IN_MEMORY


class Rows(ABC):
    """Data ``(N, *data_shape)`` that lie in a file, or in memory in another form, such as sparse.

    ``rows[index]`` reads data into a tensor, for an index as NumPy takes it along the first
    dimension. :meth:`take` and :meth:`map` read nothing.

    Attributes:
        shape: ``(N, *data_shape)``.
        dtype: Of the tensors that are read.

    Example:
        >>> import scipy.sparse
        >>> rows = rows_of(scipy.sparse.eye_array(5, format="csr"), "The data")
        >>> rows.take([1, 3]).shape, rows[2]  # only the second reads
        ((2, 5), tensor([0., 0., 1., 0., 0.], dtype=torch.float64))
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    device = torch.device("cpu")

    @abstractmethod
    def read(self, index: np.ndarray) -> Tensor:
        """``(len(index), *data_shape)``: the data of these numbers, in their order."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Tensor:
        if isinstance(index, Tensor):
            index = index.cpu().numpy()
        chosen = np.arange(len(self))[index]
        found = self.read(np.atleast_1d(chosen))
        return found if np.ndim(chosen) else found[0]

    def take(self, index: Any) -> "Rows":
        """The data of these numbers, unread."""
        return _Taken(self, np.asarray(index))

    def map(
        self,
        function: Callable[[Tensor, np.ndarray], Tensor],
        dtype: torch.dtype | None = None,
        data_shape: tuple[int, ...] | None = None,
    ) -> "Rows":
        """The data with a function applied to what is read, unread.

        Args:
            function: Takes data and their numbers.
            dtype, data_shape: Of what it returns; default as before.
        """
        return _Mapped(self, function, dtype or self.dtype, data_shape or self.shape[1:])

    def to(self, dtype: torch.dtype) -> "Rows":
        """The same numbers in another precision."""
        return self if dtype == self.dtype else self.map(lambda x, _: x.to(dtype), dtype)

    def pieces(self) -> Iterator[tuple[np.ndarray, Tensor]]:
        """All data in their order, some at a time, with their numbers."""
        size = max(1, _PIECE // max(1, self.nbytes // max(1, len(self))))
        for first in range(0, len(self), size):
            index = np.arange(first, min(first + size, len(self)))
            yield index, self.read(index)

    @property
    def nbytes(self) -> int:
        """Bytes that all data would take in memory."""
        return self.numel() * self.dtype.itemsize

    def numel(self) -> int:
        """Elements of all data."""
        return math.prod(self.shape)

    def dim(self) -> int:
        """Dimensions, that of the data included."""
        return len(self.shape)

    def element_size(self) -> int:
        """Bytes of an element."""
        return self.dtype.itemsize

    def is_floating_point(self) -> bool:
        """Whether the elements are floating-point numbers."""
        return self.dtype.is_floating_point

    def __repr__(self) -> str:
        return f"{type(self).__name__.lstrip('_')}(shape={tuple(self.shape)}, dtype={self.dtype})"


class _Taken(Rows):
    def __init__(self, rows: Rows, index: np.ndarray):
        self.rows, self.index = rows, index
        self.shape, self.dtype = (len(index), *rows.shape[1:]), rows.dtype

    def read(self, index: np.ndarray) -> Tensor:
        return self.rows.read(self.index[index])


class _Mapped(Rows):
    def __init__(
        self,
        rows: Rows,
        function: Callable[..., Tensor],
        dtype: torch.dtype,
        data_shape: tuple[int, ...],
    ):
        self.rows, self.function = rows, function
        self.shape, self.dtype = (len(rows), *data_shape), dtype

    def read(self, index: np.ndarray) -> Tensor:
        return self.function(self.rows.read(index), index)


class IndexedRows(Rows):
    """Rows of anything that gives some of them for a sorted integer array.

    Such are memory maps, SciPy's sparse rows, and the data sets of an HDF5 file.

    Args:
        source: Has ``shape``, ``dtype`` and ``source[index]``.
        what: What to call it in errors.
    """

    def __init__(self, source: Any, what: str):
        check_dtype(source.dtype, what)
        self.source, self.what = source, what
        self.shape, self.dtype = tuple(source.shape), dtype_of(source.dtype)

    def read(self, index: np.ndarray) -> Tensor:
        unique, places = np.unique(index, return_inverse=True)
        found = self.source[unique]
        found = found.toarray() if hasattr(found, "toarray") else np.asarray(found)
        return as_tensor(found[places.reshape(-1)], self.what)


class FileRows(Rows):
    """Rows of an array in a file, each read where it stands.

    The file is not mapped, so its pages do not count as memory of the process.

    Args:
        path: The file.
        shape, dtype, offset: Of the array, whose rows follow one another from ``offset`` on.
        levels: Whether uint16 stays what it is, to be scaled later.

    Raises:
        ValueError: If the file is too short.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, ...],
        dtype: np.dtype,
        offset: int,
        levels: bool = False,
    ):
        check_dtype(dtype, f"The data in {path}")
        self.path, self.stored, self.offset = path, dtype, offset
        self.levels = levels and dtype.kind == "u" and dtype.itemsize == 2
        self.shape, self.dtype = tuple(shape), torch.uint16 if self.levels else dtype_of(dtype)
        self.width = math.prod(shape[1:]) * dtype.itemsize
        missing = offset + len(self) * self.width - path.stat().st_size
        if missing > 0:
            raise ValueError(
                f"{path} is damaged: {missing:,} bytes are missing for shape {self.shape} of "
                f"{dtype}. Copy or write it again."
            )

    def read(self, index: np.ndarray) -> Tensor:
        found = np.empty((len(index), *self.shape[1:]), self.stored)
        view = found.reshape(-1).view(np.uint8).reshape(len(index), self.width)
        order = np.argsort(index, kind="stable")
        with self.path.open("rb", buffering=0) as file:
            for first, last in _runs(index[order]):
                rows = np.empty((last - first, self.width), np.uint8)
                file.seek(self.offset + int(index[order[first]]) * self.width)
                if file.readinto(memoryview(rows.data).cast("B")) != rows.size:
                    raise ValueError(f"{self.path} ends too early: it changed while it was read.")
                view[order[first:last]] = rows
        if self.levels:
            return torch.from_numpy(found.astype(np.uint16))
        return as_tensor(found, f"The data in {self.path}")


def _runs(index: np.ndarray) -> Iterator[tuple[int, int]]:
    """First and last place of each run of consecutive numbers."""
    ends = np.flatnonzero(np.diff(index) != 1) + 1
    if len(index):
        yield from zip([0, *ends.tolist()], [*ends.tolist(), len(index)], strict=True)


def rows_of(source: Any, what: str, *, levels: bool = False) -> Rows:
    """The rows of a memory map, sparse rows, or a data set of an HDF5 file.

    Args:
        source: The array.
        what: What to call it in errors.
        levels: Whether a memory map of uint16 stays uint16.
    """
    if len(source.shape) == 0:
        raise ValueError(f"{what} are a single number; the first dimension counts the data.")
    # A part of a map does not know its place in the file; a private map may differ from the file.
    whole = isinstance(source, np.memmap) and isinstance(source.base, mmap)
    if whole and source.mode != "c" and source.flags.c_contiguous and source.filename:
        place = source.shape, source.dtype, source.offset
        return FileRows(Path(str(source.filename)), *place, levels=levels)
    return IndexedRows(source, what)


def generator_of(seed: int, number: int) -> torch.Generator:
    """The random numbers of one datum, whatever else is read with it."""
    mixed = np.random.SeedSequence((seed, int(number))).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0] >> np.uint64(1)))
