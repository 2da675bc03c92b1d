"""Data of a data set or a loader, read batch by batch wherever they are used."""

from collections.abc import Sequence
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
        dtype=dtype or torch.get_default_dtype(),
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
        kept: All data, where they are few.
    """

    def __init__(self, batches: Batches):
        self.batches = batches
        self.hashes: list[bytes] = []
        kept: list[tuple[Tensor, ...]] | None = []
        first, total, size = None, 0, 0
        for batch in batches:
            first = batch if first is None else first
            total += len(batch[0])
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
        self._held: list[tuple[Tensor, ...]] = []
        self._first = 0  # number of the first datum at hand

    def read(self, column: int, start: int, stop: int) -> Tensor:
        """Data ``start`` to ``stop`` of an argument."""
        if start < self._first:
            self._restart()
        while self._first + sum(len(batch[0]) for batch in self._held) < stop:
            self._held.append(self._next())
        while self._first + len(self._held[0][0]) <= start:
            self._first += len(self._held.pop(0)[0])
        pieces = [batch[column] for batch in self._held]
        found = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        return found[start - self._first : stop - self._first]

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
        low, high = int(index.min()), int(index.max()) + 1
        return self.stream.read(self.place, low, high)[torch.as_tensor(index - low)]
