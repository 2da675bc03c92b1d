"""One array of any kind as a tensor of real numbers, or a refusal that says what to do."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pyrovae.data.frames import from_frame

__all__ = ["NoArray", "as_tensor", "check_dtype", "check_finite", "check_size", "dtype_of"]

_LARGEST = 2**63 - 1


class NoArray(TypeError):
    """Something that is no array of any kind, such as a dictionary."""


def as_tensor(data: Any, what: str, *, missing: bool = False) -> Tensor:
    """One array, tensor, list of numbers, data frame or sparse matrix as a dense tensor.

    Unsigned integers of more than 8 bits become ``int64``, in which torch can compute. Numbers of
    any byte order and memory layout keep their values. A frame becomes floating-point numbers, a
    column each.

    Args:
        data: A NumPy array, a tensor, nested lists, a pandas, polars or pyarrow frame or series, a
            SciPy sparse matrix, or an AnnData object, of which ``X`` is taken.
        what: What to call the data in errors, such as "The train data".
        missing: Whether missing cells of a frame become NaN. By default they are refused.

    Raises:
        NoArray: If the data are of another kind.
        TypeError: If they hold something else than real numbers, or are to be read first.
        ValueError: If values are masked or missing, rows differ in length, or integers do not fit
            into 64 bits.

    >>> as_tensor(np.array([1, 2], dtype=">u2"), "The counts")
    tensor([1, 2])
    """
    if isinstance(data, Tensor):
        return _from_tensor(data, what)
    if type(data).__module__.startswith("anndata"):
        data = data.X
    if isinstance(data, np.ma.MaskedArray):
        data = _unmasked(data, what)
    elif isinstance(data, list | tuple):
        data = _from_lists(data, what)
    elif (found := from_frame(data, what, missing=missing)) is not None:
        data = found
    elif hasattr(data, "toarray"):  # SciPy sparse
        data = data.toarray()
    elif not isinstance(data, np.ndarray) and hasattr(data, "__array__"):  # xarray, jax
        data = np.asarray(data)
    if not isinstance(data, np.ndarray):
        raise _no_array(data, what)
    return _from_array(data, what)


def check_dtype(dtype: np.dtype, what: str) -> None:
    """Raise a TypeError unless numbers of this kind can become a tensor."""
    if dtype.kind == "c":
        raise TypeError(_complex(what, dtype))
    if dtype.kind in "SU":
        raise TypeError(
            f"{what} hold text, no numeric dtype ({dtype}). Convert numbers by .astype(float), or "
            "leave the column out."
        )
    if dtype.kind == "O":
        raise TypeError(
            f"{what} have dtype object: found Python objects in place of numbers. Convert them by "
            ".astype(float), or pad rows that differ in length."
        )
    if dtype.kind not in "buif":
        raise TypeError(
            f"{what} have no numeric dtype: found {dtype}. Convert dates to numbers, and give the "
            "fields of records as columns."
        )


def dtype_of(dtype: np.dtype) -> torch.dtype:
    """What numbers of a NumPy dtype become."""
    return _from_array(np.empty(0, dtype), "The data").dtype


def check_size(num_bytes: int, shape: Any, what: str) -> None:
    """Raise a ValueError for data that are larger than the memory of the machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if num_bytes > memory:
        raise ValueError(
            f"{what} of shape {tuple(shape)} take {num_bytes / 2**30:,.1f} GiB, and this machine "
            f"has {memory / 2**30:,.1f} GiB. Write them to an .npy file and give "
            "numpy.load(path, mmap_mode='r'), which is read batch by batch."
        )


def check_finite(
    tensor: Tensor, who: str, *, missing: bool = False, numbers: np.ndarray | None = None
) -> None:
    """Raise a ValueError that begins with ``who`` if a value is infinite or, unless ``missing``,
    NaN.

    ``numbers`` are those of the data among all, for the message.
    """
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return
    # A sum is a tenth of the work, and finite unless a value is not or the sum overflows.
    if torch.isfinite(tensor.detach().sum()) or torch.isfinite(tensor).all():
        return
    good = ~torch.isinf(tensor) if missing else torch.isfinite(tensor)
    bad = ~good.reshape(tensor.shape[0], -1).all(1)
    if not bad.any():
        return
    first = int(bad.nonzero()[0])
    raise ValueError(
        f"{who} {'' if missing else 'NaN or '}infinite values, in {int(bad.sum())} of {len(bad)} "
        f"data (first at index {first if numbers is None else numbers[first]}). Remove or impute "
        "them."
    )


def _from_array(array: np.ndarray, what: str) -> Tensor:
    check_dtype(array.dtype, what)
    check_size(array.nbytes, array.shape, what)
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "u" and size > 1:
        if array.size and int(array.max()) > _LARGEST:
            raise ValueError(_too_large(what, array.max()))
        array = array.astype(np.int64)
    elif kind == "f" and size > 8:
        array = array.astype(np.float64)
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    # torch shares memory with what it is given: neither negative strides nor read-only memory will
    # do.
    if any(step < 0 for step in native.strides) or not native.flags.writeable:
        native = native.copy()
    return torch.from_numpy(native)


def _from_tensor(tensor: Tensor, what: str) -> Tensor:
    if tensor.is_meta:
        raise TypeError(f"{what} are a meta tensor, which holds no values. Load the values first.")
    if tensor.is_nested:
        raise TypeError(
            f"{what} are a nested tensor, whose data differ in shape. Pad them to one shape by "
            ".to_padded_tensor(0), and give a mask of what is padding as a second array."
        )
    if tensor.is_complex():
        raise TypeError(_complex(what, tensor.dtype))
    check_size(tensor.numel() * tensor.element_size(), tensor.shape, what)
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.dtype == torch.uint64 and tensor.numel() and int(tensor.view(torch.int64).min()) < 0:
        raise ValueError(_too_large(what, "more than 2**63 - 1"))
    if tensor.dtype in (torch.uint16, torch.uint32, torch.uint64):
        tensor = tensor.to(torch.int64)
    tensor = tensor.resolve_neg()
    # A tensor of inference mode could not enter a graph.
    return tensor.clone() if tensor.is_inference() else tensor


def _from_lists(data: Any, what: str) -> Any:
    try:
        array = np.asarray([np.asarray(row) if isinstance(row, Tensor) else row for row in data])
    except ValueError as error:
        raise ValueError(
            f"{what} are lists of unequal lengths. Pad them to one length, and give a mask of what "
            "is padding as a second array."
        ) from error
    return array


def _unmasked(data: np.ma.MaskedArray, what: str) -> np.ndarray:
    hidden = int(np.ma.getmaskarray(data).sum())
    if hidden:
        raise ValueError(
            f"{what}: {hidden} values are masked. Fill them by .filled(value), or give values and "
            "mask as two arrays to the programs of pyrovae.observe_part."
        )
    return data.data


def _no_array(data: Any, what: str) -> TypeError:
    found = type(data).__name__
    if isinstance(data, Mapping):
        keys = ", ".join(map(repr, list(data)[:5]))
        return NoArray(
            f"{what} must be arrays, found {found} with the keys {keys}. Give a tuple of arrays, "
            "in the order of the programs' arguments."
        )
    if hasattr(data, "collect"):
        return TypeError(f"{what} are a lazy frame, found {found}. Read it by .collect().")
    if isinstance(data, Iterator):
        return TypeError(
            f"{what} can be read once only, found {found}. Give a torch IterableDataset or a "
            "DataLoader, which start anew for each epoch."
        )
    if isinstance(data, Dataset | DataLoader):
        return TypeError(
            f"{what} are a {found}, where one array is expected. Give its arrays one by one, such "
            "as dataset.tensors of a TensorDataset. (Where a Dataset is taken, as by fit, it "
            "stands for all arguments of the programs, alone.)"
        )
    return NoArray(
        f"{what} must be an array, a tensor, a data frame, a sparse matrix, a tuple of them, a "
        f"Dataset or a DataLoader, found {found}."
        + " Read a file or a named data set by pv.data.load." * isinstance(data, str | os.PathLike)
        + " Give a part of it, such as .train." * hasattr(data, "valid")
    )


def _complex(what: str, dtype: Any) -> str:
    return (
        f"{what} are complex ({dtype}), and no likelihood takes complex numbers. Give the real and "
        "the imaginary part as channels, for instance by numpy.stack((x.real, x.imag), 1)."
    )


def _too_large(what: str, largest: Any) -> str:
    return (
        f"{what} hold integers that do not fit into 64 bits: found {largest}. Convert them to "
        "float64."
    )
