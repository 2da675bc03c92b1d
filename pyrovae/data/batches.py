"""Whatever holds data, as batches of tensors on one device."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from pyrovae.data import loaders
from pyrovae.data.arguments import as_arguments, num_arguments
from pyrovae.data.rows import Rows

__all__ = ["Batches", "as_batches", "transformed"]

_AHEAD = 2  # batches of rows that are read while the ones before are used


class Batches:
    """Batches of data from tensors on the device, rows, or a loader. Each iteration starts anew.

    Args:
        source: A tuple of tensors or :class:`~pyrovae.data.rows.Rows` of one length, or a
            :class:`~torch.utils.data.DataLoader`.
        batch_size: Of tensors and rows; a loader has its own.
        shuffle: Whether each iteration draws a new order, by the global random state.
        drop_last: Whether the last batch of an iteration is left out where it is smaller.
        transform: Applied to each batch.
        check: Called with each batch that was not seen as a whole before: those of rows and of a
            loader, and those that a transform gives. It raises an error if they cannot be data of
            the programs.
        num_arguments: How many elements of a loader's batch to keep; None keeps all.
        device, dtype: Where batches go, and the precision of floating ones; None keeps theirs.
        name: What to call the data in errors.

    Raises:
        TypeError, ValueError: If a batch cannot be data of the programs, such as one with NaN. The
            message names the batch or the datum. See :func:`pyrovae.data.loaders.loaded`.
    """

    def __init__(
        self,
        source: tuple[Tensor | Rows, ...] | DataLoader,
        batch_size: int,
        *,
        shuffle: bool,
        drop_last: bool,
        transform: Callable[..., Any] | None,
        check: Callable[..., Any] | None,
        num_arguments: int | None,
        device: torch.device,
        dtype: torch.dtype | None,
        name: str = "data",
    ):
        self.name, self.check, self.drop_last = name, check, drop_last
        self.source, self.batch_size, self.shuffle = source, batch_size, shuffle
        self.transform, self.num_arguments = transform, num_arguments
        self.device, self.dtype = device, dtype

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return self.after(0)

    def after(self, taken: int) -> Iterator[tuple[Tensor, ...]]:
        """The batches after the first ones, which are drawn now, and not transformed."""
        numbered = enumerate(self._raw())
        for _ in islice(numbered, taken):
            pass
        return self._finished(numbered)

    def _finished(self, numbered: Iterator[tuple[int, tuple]]) -> Iterator[tuple[Tensor, ...]]:
        for number, batch in numbered:
            batch = transformed(self.transform, batch)
            if self.check is not None and not self._seen_as_a_whole:
                try:
                    self.check(*batch)
                except (TypeError, ValueError) as error:
                    raise type(error)(f"Batch {number} of the {self.name} data: {error}") from error
            yield batch

    @property
    def num_batches(self) -> int:
        """Batches in one pass; a guess for a stream without a length."""
        if isinstance(self.source, DataLoader):
            return loaders.num_batches(self.source)
        return self.num_data // self.batch_size + (self._rest > 0 and not self.drop_last)

    @property
    def _rest(self) -> int:
        """Data in a last batch that is smaller than the others."""
        return self.num_data % self.batch_size

    @property
    def _in_memory(self) -> bool:
        """Whether all data are tensors on the device."""
        return not isinstance(self.source, DataLoader) and all(
            isinstance(column, Tensor) for column in self.source
        )

    @property
    def _seen_as_a_whole(self) -> bool:
        return self.transform is None and self._in_memory

    @property
    def num_data(self) -> int:
        """Data in one pass.

        Raises:
            TypeError: If they come from a stream without a length.
        """
        if isinstance(self.source, DataLoader):
            return len(self.source.dataset)  # type: ignore[arg-type]
        return len(self.source[0])

    @property
    def by_index(self) -> bool:
        """Whether :meth:`gather` may be captured with the programs: tensors, and a transform that
        says it may.
        """
        return self._in_memory and getattr(self.transform, "capturable", self.transform is None)

    def gather(self, index: Tensor) -> tuple[Tensor, ...]:
        """The batch of these rows, transformed."""
        assert not isinstance(self.source, DataLoader)
        return transformed(self.transform, _rows(self.source, index))

    def indices(self) -> Iterator[tuple[Tensor]]:
        """The rows of each batch, in place of the data."""
        size, device = self.num_data, self.device
        order = (
            torch.randperm(size).to(device) if self.shuffle else torch.arange(size, device=device)
        )
        if self.drop_last:
            order = order[: size - self._rest]
        for index in order.split(self.batch_size):
            yield (index,)

    def first(self) -> tuple[Tensor, ...]:
        """A first batch, taken without a change to the random state or to the order of later
        batches.
        """
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            return next(iter(self))

    def sample(self) -> tuple[Tensor, ...]:
        """Data to check before training: all of them if they are tensors without a transform, else
        one batch.
        """
        return self.source if self._seen_as_a_whole else self.first()  # type: ignore[return-value]

    def _raw(self) -> Iterator[tuple[Tensor, ...]]:
        if isinstance(self.source, DataLoader):
            yield from loaders.loaded(
                self.source,
                self._cast,
                num_arguments=self.num_arguments,
                name=self.name,
            )
        elif self._in_memory:
            for (index,) in self.indices():
                yield _rows(self.source, index)
        else:
            yield from self._read_ahead()

    def _read_ahead(self) -> Iterator[tuple[Tensor, ...]]:
        """Batches of rows, read by a thread while the batches before are used."""

        def read(index: np.ndarray) -> tuple[Tensor, ...]:
            return tuple(column[index] for column in self.source)  # type: ignore[union-attr]

        with ThreadPoolExecutor(1, "pyrovae-read") as thread:
            waiting: deque[Future] = deque()
            for (index,) in self.indices():
                waiting.append(thread.submit(read, index.cpu().numpy()))
                if len(waiting) > _AHEAD:
                    yield tuple(map(self._cast, waiting.popleft().result()))
            while waiting:
                yield tuple(map(self._cast, waiting.popleft().result()))

    def _cast(self, tensor: Tensor) -> Tensor:
        dtype = self.dtype if tensor.is_floating_point() else None
        return tensor.to(device=self.device, dtype=dtype)


def transformed(transform: Callable[..., Any] | None, batch: tuple[Any, ...]) -> tuple[Any, ...]:
    """A batch as a transform gives it back."""
    if transform is None:
        return batch
    changed = transform(*batch)
    return tuple(changed) if isinstance(changed, list | tuple) else (changed,)


def _rows(columns: tuple[Any, ...], index: Tensor) -> tuple[Tensor, ...]:
    """These rows of tensors; ``column[index]`` would take several times as long."""
    return tuple(torch.index_select(column, 0, index) for column in columns)


def as_batches(
    data: Any,
    batch_size: int,
    *,
    shuffle: bool,
    device: torch.device,
    dtype: torch.dtype | None,
    programs: Sequence[Callable[..., Any]],
    transform: Callable[..., Any] | None = None,
    check: Callable[..., Any] | None = None,
    drop_last: bool = False,
    name: str = "data",
) -> Batches:
    """Batches of all that :func:`~pyrovae.data.arguments.as_arguments` takes, of a ``Dataset`` or
    of a ``DataLoader``.

    Other arguments are those of :class:`Batches`.

    Raises:
        TypeError: If the data are of another kind.
        ValueError: If they are empty, of unequal lengths, or not finite.
    """
    kept = None
    if isinstance(data, TensorDataset):
        data = data.tensors[: num_arguments(programs[0])]
    if isinstance(data, Dataset):
        order: dict[str, Any] = {"shuffle": shuffle, "drop_last": drop_last}
        data = loaders.as_loader(data, batch_size, name=name, **order)
    if isinstance(data, DataLoader):
        kept = num_arguments(programs[0])
        source: tuple[Tensor | Rows, ...] | DataLoader = data
    else:
        source = as_arguments(data, device=device, dtype=dtype, name=name)
        if drop_last and len(source[0]) < batch_size:
            raise ValueError(
                f"drop_last=True leaves no batch: there are {len(source[0])} {name} data, fewer "
                f"than batch_size={batch_size}. Lower batch_size."
            )
    return Batches(
        source,
        batch_size,
        shuffle=shuffle,
        drop_last=drop_last,
        transform=transform,
        check=check,
        num_arguments=kept,
        device=device,
        dtype=dtype,
        name=name,
    )
