"""The one way in: whatever holds data, as the arguments of two programs."""

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pyrovae.data.arrays import NoArray, as_tensor, check_finite
from pyrovae.data.loaders import gathered
from pyrovae.data.rows import Rows, is_small, rows_of
from pyrovae.programs import Program, floating_parameter, unwrapped

__all__ = ["as_arguments", "as_tensors", "for_programs", "is_several", "num_arguments"]


def as_arguments(
    data: Any,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    name: str = "data",
    missing: bool = False,
    program: Program | None = None,
) -> tuple[Tensor | Rows, ...]:
    """An array, or a tuple or list of arrays, as checked tensors or rows, one for each argument.

    What lies in memory as an array becomes a tensor. Memory maps, sparse matrices and data sets of
    HDF5 files that would take more than 256 MiB become :class:`~pyrovae.data.rows.Rows`, which are
    read, checked and cast where they are used.

    Args:
        data: All that :func:`~pyrovae.data.arrays.as_tensor` takes; a memory map; a tuple or list
            of these; or a ``Dataset`` or ``DataLoader``, which is read into memory.
        device: Where tensors go; rows stay on the CPU.
        dtype: Of floating-point numbers.
        name: What to call the data in errors.
        missing: Whether floating-point numbers may be NaN.
        program: A program that takes the data. Of the items of a data set, elements beyond its
            arguments, such as labels, are left out.

    Raises:
        TypeError: If something is not an array of numbers.
        ValueError: If there are no data, if lengths differ, or if a value is masked, missing or
            infinite.
    """
    what = "The data" if name == "data" else f"The {name} data"
    if isinstance(data, Dataset | DataLoader):
        data = gathered(data, None if program is None else num_arguments(program), name)
    found = []
    several = is_several(data)
    for place, item in enumerate(data if several else (data,)):
        called = f"{what} (argument {place})" if several and len(data) > 1 else what
        value = _opened(item, called, missing)
        if isinstance(value, Tensor):
            value = value.detach().to(device=device, dtype=_kept(value, dtype))
        else:
            value = value.to(_kept(value, dtype))
        found.append(value)
    _check_lengths(found, what)
    for i, value in enumerate(found):
        if isinstance(value, Tensor):
            check_finite(value, f"{what} hold", missing=missing)
        elif value.is_floating_point():
            found[i] = value.map(_Check(f"{what} hold", missing))
    return tuple(found)


def as_tensors(
    data: Any,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    name: str = "data",
    missing: bool = False,
    program: Program | None = None,
) -> tuple[Tensor, ...]:
    """As :func:`as_arguments`, with all rows read into memory; for data that are one batch.

    >>> import numpy as np
    >>> as_tensors((np.ones((2, 3)), np.array([0, 1])), dtype=torch.float32)
    (tensor([[1., 1., 1.],
            [1., 1., 1.]]), tensor([0, 1]))
    """
    options: dict[str, Any] = {"name": name, "missing": missing, "program": program}
    found = as_arguments(data, device=device, dtype=dtype, **options)
    return tuple(x if isinstance(x, Tensor) else x[:].to(device) for x in found)


def for_programs(args: Sequence[Any], programs: Sequence[Program]) -> tuple[Any, ...]:
    """Positional arguments of programs, arrays of any kind as tensors in the precision and place of
    the parameters; numbers, dictionaries and other settings as they are.

    A tuple, a ``Dataset`` or a ``DataLoader``, given alone, stands for all arguments.

    Raises:
        TypeError, ValueError: As :func:`as_arguments`.
    """
    if len(args) == 1:
        (data,) = args
        if isinstance(data, Dataset | DataLoader):
            data = gathered(data, num_arguments(programs[0]), "data")
        args = data if is_several(data) else args
    like = floating_parameter(*programs)
    found = []
    for item in args:
        if item is not None and not isinstance(item, int | float | str):
            with suppress(NoArray):  # a setting, such as a dictionary or a function
                item = as_tensor(item[:] if isinstance(item, Rows) else item, "The data")
                if not found and item.dim() and not len(item):
                    raise ValueError(_empty("The data", [item]))
                if like is not None:
                    item = item.to(device=like.device, dtype=_kept(item, like.dtype))
        found.append(item)
    return tuple(found)


def _empty(what: str, found: Sequence[Tensor | Rows]) -> str:
    shapes = [tuple(value.shape) for value in found]
    return f"{what} are empty: shapes {shapes}. Their first dimension counts the data."


def _check_lengths(found: Sequence[Tensor | Rows], what: str) -> None:
    if not found or any(value.dim() == 0 or len(value) == 0 for value in found):
        raise ValueError(_empty(what, found))
    lengths = [len(value) for value in found]
    if len(set(lengths)) > 1:
        raise ValueError(
            f"{what} have arrays of different lengths: {lengths}. Their first dimension counts the "
            "data."
        )
    if found[0].numel() == 0:
        raise ValueError(
            f"{what} hold no numbers: shape {tuple(found[0].shape)}. Give data of at "
            "least one element each."
        )


class _Check:
    """Checks rows as they are read."""

    def __init__(self, who: str, missing: bool):
        self.who, self.missing = who, missing

    def __call__(self, x: Tensor, numbers: np.ndarray) -> Tensor:
        check_finite(x, self.who, missing=self.missing, numbers=numbers)
        return x


def is_several(data: Any) -> bool:
    """Whether these are several arguments: a tuple, or a list that holds arrays."""
    if not isinstance(data, tuple | list):
        return False
    return isinstance(data, tuple) or not data or not _is_nested(data)


def _is_nested(data: Any) -> bool:
    """Whether a list holds numbers or lists, as one array does."""
    return all(isinstance(item, int | float | complex | str | list | np.generic) for item in data)


def _opened(item: Any, what: str, missing: bool) -> Tensor | Rows:
    """A tensor, or rows where the item is large and not yet dense in memory."""
    if type(item).__module__.startswith("anndata") and hasattr(item, "X"):
        item = item.X
    sparse = hasattr(item, "tocsr") and hasattr(item, "nnz") and len(item.shape) == 2
    stored = type(item).__module__.startswith(("h5py", "anndata"))
    if sparse:
        item = rows_of(item.tocsr(), what)
    elif isinstance(item, np.memmap) or (stored and hasattr(item, "dtype")):
        item = rows_of(item, what)
    if not isinstance(item, Rows):
        return as_tensor(item, what, missing=missing)
    return item[:] if len(item) and is_small(item.nbytes) else item


def _kept(value: Tensor | Rows, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and value.is_floating_point() else value.dtype


def num_arguments(program: Callable[..., Any]) -> int | None:
    """How many arrays of a data set a program takes; None if any number.

    A parameter with a default, such as ``kl_weight=1.0``, is a setting, which no array may replace.
    A default of None, as in ``labels=None``, stands for an array that may be missing.
    """
    program = unwrapped(program)
    if isinstance(program, torch.nn.Module):
        program = program.forward
    parameters: Sequence[inspect.Parameter] = [*inspect.signature(program).parameters.values()]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    absent = (inspect.Parameter.empty, None)
    arrays = takewhile(
        lambda p: p.kind in kinds and any(p.default is a for a in absent), parameters
    )
    return len(list(arrays))
