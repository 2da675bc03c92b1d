"""Data of a data set or a loader, read batch by batch wherever they are used."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from pyrovae.data.batches import Batches, as_batches
from pyrovae.data.hashing import content_hash
from pyrovae.data.rows import Rows, is_small
from pyrovae.programs import Program

__all__ = ["Column", "streamed"]

_BATCH = 256  # data of a data set that are read at once


def streamed(
    data: Any, programs: Sequence[Program], dtype: torch.dtype | None
) -> tuple[Tensor | Rows, ...]:
    """The arguments of the programs, from a ``Dataset`` or a ``DataLoader``.

    They are read once here: up to 256 MiB become tensors; more become columns, which are read again
    wherever they are used.

    Raises:
        ValueError: If there are no data, or their order is drawn at random.
    """
    batches = as_batches(
        data,
        _BATCH,
        shuffle=False,
        device=torch.device("cpu"),
        dtype=dtype,
        programs=programs,
        name="evidence",
    )
    if not isinstance(batches.source, DataLoader):
        return batches.source
    _check_loader(batches.source)
    stream = _Stream(batches)
    return stream.kept or tuple(Column(stream, i) for i in range(len(stream.shapes)))


def _check_loader(loader: DataLoader) -> None:
    if isinstance(loader.sampler, RandomSampler | SubsetRandomSampler | WeightedRandomSampler):
        raise ValueError(
            f"The loader draws its order ({type(loader.sampler).__name__}), and evidence keeps the "
            "order of the data. Give a loader with shuffle=False, or its dataset."
        )
    if loader.drop_last:
        try:
            left = len(loader.dataset) % (loader.batch_size or 1)  # type: ignore[arg-type]
        except TypeError:
            left = None
        if left != 0:
            raise ValueError(
                "The loader leaves out its last data (drop_last=True), so the evidence would not "
                "be that of all data. Give a loader with drop_last=False."
            )


class _Stream:
    """One reading of a loader after another, and the batches at hand.

    Attributes:
        shapes: ``(N, *data_shape)`` of each argument.
        dtypes: Of each argument.
        largest: Data of the largest batch.
        kept: All data, where they are few.
    """

    def __init__(self, batches: Batches):
        self.batches = batches
        self.hashes: list[bytes] = []
        kept: list[tuple[Tensor, ...]] | None = []
        self.largest = 0
        first, total, size = None, 0, 0
        for batch in batches:
            first = batch if first is None else first
            total += len(batch[0])
            self.largest = max(self.largest, len(batch[0]))
            size += sum(tensor.nbytes for tensor in batch)
            self.hashes.append(content_hash(batch))
            if kept is not None:
                kept.append(batch)
                kept = kept if is_small(size) else None
        if first is None or total == 0:
            raise ValueError(
                "The data for the evidence are empty: the loader gave no batch. A dataset that can "
                "only be iterated must start anew at each iteration."
            )
        self.shapes = [(total, *tensor.shape[1:]) for tensor in first]
        self.dtypes = [tensor.dtype for tensor in first]
        self.kept = None if kept is None else tuple(map(torch.cat, zip(*kept, strict=True)))
        self._restart()

    def _restart(self) -> None:
        self._rest, self._number = iter(self.batches), 0
        self._batch: tuple[Tensor, ...] = ()
        self._first = self._stop = 0  # numbers of the first datum at hand, and after the last
        self._read: tuple[np.ndarray, tuple[Tensor, ...]] | None = None

    def read(self, column: int, index: np.ndarray) -> Tensor:
        """The data of these numbers of an argument.

        They are read for all arguments at once, since the same numbers are asked of the others
        next. Beside them one batch is held.
        """
        if self._read is None or not np.array_equal(self._read[0], index):
            numbers, places = np.unique(index, return_inverse=True)
            self._read = None
            found = self._gather(numbers)
            order = torch.as_tensor(places.reshape(-1))
            self._read = index, tuple(tensor[order] for tensor in found)
        return self._read[1][column]

    def _gather(self, numbers: np.ndarray) -> list[Tensor]:
        """The data of these numbers, which rise, in all arguments."""
        if numbers[0] < self._first:
            self._restart()
        pieces = []
        while len(numbers):
            while self._stop <= numbers[0]:
                self._batch = self._next()
                self._first, self._stop = self._stop, self._stop + len(self._batch[0])
            here = numbers[numbers < self._stop]
            within = torch.as_tensor(here - self._first)
            pieces.append([tensor[within] for tensor in self._batch])
            numbers = numbers[len(here) :]
        return [torch.cat(column) for column in zip(*pieces, strict=True)]

    def pieces(self, column: int) -> Iterator[tuple[np.ndarray, Tensor]]:
        """All data of an argument, batch by batch, so that all arguments have the same pieces."""
        first, total = 0, self.shapes[0][0]
        while first < total:
            index = np.arange(first, min(first + self.largest, total))
            yield index, self.read(column, index)
            first += len(index)

    def _next(self) -> tuple[Tensor, ...]:
        batch = next(self._rest, None)
        if batch is None or content_hash(batch) != self.hashes[self._number]:
            raise ValueError(
                f"Batch {self._number} of the loader is not the same at a second reading, and "
                "evidence reads the data more than once. Leave out random changes and random order."
            )
        self._number += 1
        return batch


class Column(Rows):
    """One argument of the programs, read from the batches of a loader where rows are asked for."""

    def __init__(self, stream: _Stream, place: int):
        self.stream, self.place = stream, place
        self.shape, self.dtype = stream.shapes[place], stream.dtypes[place]

    def read(self, index: np.ndarray) -> Tensor:
        return self.stream.read(self.place, index)

    def pieces(self) -> Iterator[tuple[np.ndarray, Tensor]]:
        return self.stream.pieces(self.place)
