"""Whatever holds data, as batches of tensors on one device."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, takewhile
from typing import Any

import torch
from pyro.poutine.messenger import unwrap
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from pyrovae.data.arrays import as_tensor

__all__ = ["Batches", "as_batches", "as_tensors"]


class Batches:
    """Batches of data from tensors on the device, or from a loader. Each iteration starts anew.

    Args:
        source: A tuple of tensors of one length, or a :class:`~torch.utils.data.DataLoader`.
        batch_size: Of tensors; a loader has its own.
        shuffle: Whether each iteration draws a new order, by the global random state.
        drop_last: Whether the last batch of an iteration is left out where it is smaller.
        transform: Applied to each batch.
        check: Called with each batch that was not seen as a whole before: those of a loader, and
            those that a transform gives. It raises an error if they cannot be data of the programs.
        num_arguments: How many elements of a loader's batch to keep; None keeps all.
        device, dtype: Where batches go, and the precision of floating ones.
        name: What to call the data in errors.

    Raises:
        ValueError: If a batch of a loader holds NaN or infinite values. The message names the batch
            and the datum.
    """

    def __init__(
        self,
        source: tuple[Tensor, ...] | DataLoader,
        batch_size: int,
        *,
        shuffle: bool,
        drop_last: bool,
        transform: Callable[..., Any] | None,
        check: Callable[..., Any] | None,
        num_arguments: int | None,
        device: torch.device,
        dtype: torch.dtype,
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
            batch = self._transformed(batch)
            if self.check is not None and not self._seen_as_a_whole:
                try:
                    self.check(*batch)
                except (TypeError, ValueError) as error:
                    raise type(error)(f"Batch {number} of the {self.name} data: {error}") from error
            yield batch

    @property
    def num_batches(self) -> int:
        """Batches in one pass."""
        if isinstance(self.source, DataLoader):
            return len(self.source)
        return self.num_data // self.batch_size + (self._rest > 0 and not self.drop_last)

    @property
    def _rest(self) -> int:
        """Data in a last batch that is smaller than the others."""
        return self.num_data % self.batch_size

    @property
    def _seen_as_a_whole(self) -> bool:
        return self.transform is None and not isinstance(self.source, DataLoader)

    @property
    def num_data(self) -> int:
        """Data in one pass."""
        if isinstance(self.source, DataLoader):
            return len(self.source.dataset)  # type: ignore[arg-type]
        return self.source[0].shape[0]

    @property
    def by_index(self) -> bool:
        """Whether :meth:`gather` may be captured with the programs: tensors, and a transform that
        says it may.
        """
        return not isinstance(self.source, DataLoader) and getattr(
            self.transform, "capturable", self.transform is None
        )

    def gather(self, index: Tensor) -> tuple[Tensor, ...]:
        """The batch of these rows, transformed."""
        assert not isinstance(self.source, DataLoader)
        return self._transformed(tuple(tensor[index] for tensor in self.source))

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
            for number, batch in enumerate(self.source):
                yield self._from_loader(batch, number)
            return
        if self.shuffle or self.drop_last:
            for (index,) in self.indices():
                yield tuple(tensor[index] for tensor in self.source)
        else:
            yield from zip(*(tensor.split(self.batch_size) for tensor in self.source), strict=True)

    def _from_loader(self, batch: Any, number: int) -> tuple[Tensor, ...]:
        batch = tuple(batch) if isinstance(batch, list | tuple) else (batch,)
        tensors = []
        for item in batch[: self.num_arguments]:
            tensor = as_tensor(item, f"The {self.name} data of batch {number}")
            # Checked before the move to the device, where looking at a value would wait for all
            # work there.
            _check_finite(tensor, f"Batch {number} of the {self.name} data holds")
            tensors.append(_cast(tensor, self.device, self.dtype))
        return tuple(tensors)

    def _transformed(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self.transform is None:
            return batch
        changed = self.transform(*batch)
        return tuple(changed) if isinstance(changed, list | tuple) else (changed,)


def as_batches(
    data: Any,
    batch_size: int,
    *,
    shuffle: bool,
    device: torch.device,
    dtype: torch.dtype,
    programs: Sequence[Callable[..., Any]],
    transform: Callable[..., Any] | None = None,
    check: Callable[..., Any] | None = None,
    drop_last: bool = False,
    name: str = "data",
) -> Batches:
    """Batches of an array, a tuple of arrays, a ``Dataset`` or a ``DataLoader``.

    Other arguments are those of :class:`Batches`.

    Raises:
        TypeError: If the data are of another kind.
        ValueError: If they are empty, of unequal lengths, or not finite.
    """
    num_arguments = None
    if isinstance(data, TensorDataset):
        num_arguments = _num_arguments(programs[0])
        data = data.tensors[:num_arguments]
    if isinstance(data, Dataset):
        if len(data) == 0:  # type: ignore[arg-type]
            raise ValueError(f"The {name} data are empty: a dataset of length 0.")
        data = DataLoader(data, batch_size, shuffle=shuffle, drop_last=drop_last)
    if isinstance(data, DataLoader):
        num_arguments = _num_arguments(programs[0])
        source: tuple[Tensor, ...] | DataLoader = data
    else:
        source = as_tensors(data, device=device, dtype=dtype, name=name)
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
        num_arguments=num_arguments,
        device=device,
        dtype=dtype,
        name=name,
    )


def as_tensors(
    data: Any,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    name: str = "data",
) -> tuple[Tensor, ...]:
    """An array, or a tuple of arrays, as a tuple of checked tensors; floating ones in ``dtype``.

    Raises:
        TypeError: If something is not an array of numbers.
        ValueError: If there are no data, if lengths differ, or if a value is masked, NaN or
            infinite.

    >>> import numpy as np
    >>> as_tensors((np.ones((2, 3)), np.array([0, 1])), dtype=torch.float32)
    (tensor([[1., 1., 1.],
            [1., 1., 1.]]), tensor([0, 1]))
    """
    tensors = []
    for item in data if isinstance(data, tuple | list) else (data,):
        tensors.append(_cast(as_tensor(item, f"The {name} data"), device, dtype))
    if not tensors or any(tensor.dim() == 0 or tensor.shape[0] == 0 for tensor in tensors):
        raise ValueError(f"The {name} data are empty: shapes {[tuple(t.shape) for t in tensors]}.")
    if len({tensor.shape[0] for tensor in tensors}) > 1:
        raise ValueError(
            f"The {name} arrays have different lengths: {[t.shape[0] for t in tensors]}."
        )
    for tensor in tensors:
        _check_finite(tensor, f"The {name} data hold")
    return tuple(tensors)


def _check_finite(tensor: Tensor, who: str) -> None:
    """Raise a ValueError that begins with ``who`` if a value is NaN or infinite."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return
    # A sum is a tenth of the work, and finite unless a value is not or the sum overflows.
    if torch.isfinite(tensor.detach().sum()) or torch.isfinite(tensor).all():
        return
    bad = ~torch.isfinite(tensor).reshape(tensor.shape[0], -1).all(1)
    raise ValueError(
        f"{who} NaN or infinite values, in {int(bad.sum())} of {len(bad)} data "
        f"(first at index {int(bad.nonzero()[0])}). Remove or impute them."
    )


def _cast(tensor: Tensor, device: torch.device | None, dtype: torch.dtype | None) -> Tensor:
    return tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)


def _num_arguments(program: Callable[..., Any]) -> int | None:
    """How many arrays of a data set a program takes; None if any number.

    A parameter with a default, such as ``kl_weight=1.0``, is a setting, which no array may replace.
    A default of None, as in ``labels=None``, stands for an array that may be missing.
    """
    program = unwrap(program)
    if isinstance(program, torch.nn.Module):
        program = program.forward
    parameters = inspect.signature(program).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    absent = (inspect.Parameter.empty, None)
    return len(
        list(
            takewhile(lambda p: p.kind in kinds and any(p.default is a for a in absent), parameters)
        )
    )
