"""Batches of data sets and loaders as tensors, or a refusal that names what they gave."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from pyrovae.data.arrays import as_tensor, check_finite

__all__ = ["as_loader", "gathered", "loaded", "num_batches"]

_AT_ONCE = 256  # items of a data set that are put together
_UNKNOWN = 1000
"""Batches to expect of a stream that does not know its length: enough for a compilation to pay."""


def as_loader(
    data: Dataset, batch_size: int, *, shuffle: bool, drop_last: bool, name: str
) -> DataLoader:
    """A loader of a data set. One that can only be iterated keeps its own order.

    Raises:
        ValueError: If the data set is empty.
    """
    if isinstance(data, IterableDataset):
        return DataLoader(data, batch_size, drop_last=drop_last)
    try:
        size = len(data)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError) as error:
        raise TypeError(
            f"The {name} data are a {type(data).__name__} without a length. Define __len__, or "
            "derive it from torch.utils.data.IterableDataset."
        ) from error
    if size == 0:
        raise ValueError(f"The {name} data are empty: a dataset of length 0.")
    if drop_last and size < batch_size:
        raise ValueError(
            f"drop_last=True leaves no batch: there are {size} {name} data, fewer than "
            f"batch_size={batch_size}. Lower batch_size."
        )
    return DataLoader(data, batch_size, shuffle=shuffle, drop_last=drop_last)


def num_batches(loader: DataLoader) -> int:
    """Batches in one pass; a guess for a stream without a length."""
    try:
        return len(loader)
    except TypeError:
        return _UNKNOWN


def gathered(
    data: Dataset | DataLoader, num_arguments: int | None, name: str
) -> tuple[Tensor, ...]:
    """All data of a data set or a loader in memory.

    Raises:
        TypeError, ValueError: As :func:`loaded`.
    """
    if not isinstance(data, DataLoader):
        data = as_loader(data, _AT_ONCE, shuffle=False, drop_last=False, name=name)
    batches = loaded(data, lambda tensor: tensor, num_arguments=num_arguments, name=name)
    return tuple(map(torch.cat, zip(*batches, strict=True)))


def loaded(
    loader: DataLoader,
    cast: Callable[[Tensor], Tensor],
    *,
    num_arguments: int | None,
    name: str,
) -> Iterator[tuple[Tensor, ...]]:
    """The batches of a loader in one pass, checked.

    Args:
        loader: The loader.
        cast: To the device and precision of the programs.
        num_arguments: How many elements of each batch to keep; None keeps all.
        name: What to call the data in errors.

    Raises:
        TypeError: If batches are no arrays.
        ValueError: If the loader gives no batch, a batch is empty, data change their shape from one
            batch to another, or a value is not finite.
    """
    number, shapes = -1, None
    whose = "the data" if name == "data" else f"the {name} data"
    for number, batch in enumerate(_collated(loader, name)):
        where = f"Batch {number} of {whose}"
        tensors = []
        for item in _elements(batch, where)[:num_arguments]:
            tensor = as_tensor(item, where)
            # Checked before the move to the device, where looking at a value would wait for all
            # work there.
            check_finite(tensor, f"{where} holds")
            tensors.append(cast(tensor.detach()))
        shapes = _checked_shapes(tensors, shapes, where)
        yield tuple(tensors)
    if number < 0:
        raise ValueError(_empty(loader, name))


def _collated(loader: DataLoader, name: str) -> Iterator[Any]:
    try:
        yield from loader
    except RuntimeError as error:  # of torch's default collate_fn
        if "equal size" not in str(error):
            raise
        raise ValueError(
            f"The {name} data have items of different shapes, which make no batch ({error}). "
            "Resize or pad them in the dataset, or give the loader a collate_fn."
        ) from error
    except TypeError as error:
        if "default_collate" not in str(error):
            raise
        kind = str(error).rpartition("found ")[2]
        raise TypeError(
            f"The {name} data have items that make no batch: found {kind}. Return tensors from "
            "the dataset (torchvision: transform=ToTensor()), or give the loader a collate_fn."
        ) from error


def _elements(batch: Any, where: str) -> tuple[Any, ...]:
    if isinstance(batch, Mapping):
        keys = ", ".join(map(repr, batch))
        raise TypeError(
            f"{where} is a {type(batch).__name__} with the keys {keys}. The programs take arrays "
            "in order: let the dataset return a tuple, or give the loader a collate_fn that "
            "does."
        )
    if isinstance(batch, list | tuple):
        if not batch:
            raise ValueError(f"{where} holds nothing. Let the dataset return at least one array.")
        return tuple(batch)
    return (batch,)


def _checked_shapes(tensors: list[Tensor], before: Any, where: str) -> list[torch.Size]:
    if any(tensor.dim() == 0 for tensor in tensors):
        raise ValueError(
            f"{where} is a single number; the first dimension counts the data. Give the loader a "
            "batch_size, or a collate_fn that stacks."
        )
    lengths = [len(tensor) for tensor in tensors]
    if len(set(lengths)) > 1:
        raise ValueError(f"{where} holds arrays of different lengths: {lengths}.")
    if lengths and lengths[0] == 0:
        raise ValueError(f"{where} holds no data. Leave out empty batches.")
    shapes = [tensor.shape[1:] for tensor in tensors]
    if before is not None and shapes != before:
        raise ValueError(
            f"{where} has data of shape {_shown(shapes)}, and those before had {_shown(before)}. "
            "Resize or pad the data to one shape."
        )
    return shapes


def _shown(shapes: list[torch.Size]) -> str:
    return " and ".join(str(tuple(shape)) for shape in shapes)


def _empty(loader: DataLoader, name: str) -> str:
    try:
        size = len(loader.dataset)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        return (
            f"The {name} loader gave no batch. Its dataset must start anew at each iteration: "
            "return a new iterator from __iter__."
        )
    if size == 0:
        return f"The {name} data are empty: the loader's dataset has length 0."
    if getattr(loader, "drop_last", False):
        return (
            f"The {name} loader gave no batch: its dataset has {size} data, fewer than its "
            f"batch_size={loader.batch_size}, and drop_last=True leaves them out. Lower batch_size."
        )
    return f"The {name} loader gave no batch. Look at its sampler."
