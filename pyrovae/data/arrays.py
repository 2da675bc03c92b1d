"""Arrays of any kind as tensors of real numbers, or a refusal that says what to do."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["as_tensor"]

_LARGEST = 2**63 - 1


def as_tensor(data: Any, what: str) -> Tensor:
    """One array, tensor, data frame or sparse matrix as a dense tensor of real numbers.

    Unsigned integers of more than 8 bits become ``int64``, in which torch can compute. Numbers of
    any byte order and memory layout keep their values.

    Args:
        data: A NumPy array, a tensor, a pandas or polars frame or series, or a SciPy sparse matrix.
        what: What to call the data in errors, such as "the train data".

    Raises:
        TypeError: If the data are of another kind, or hold something else than real numbers.
        ValueError: If values are masked, or integers do not fit into 64 bits.

    >>> as_tensor(np.array([1, 2], dtype=">u2"), "the counts")
    tensor([1, 2])
    """
    if isinstance(data, Tensor):
        return _from_tensor(data, what)
    if isinstance(data, np.ma.MaskedArray):
        hidden = int(np.ma.getmaskarray(data).sum())
        if hidden:
            raise ValueError(
                f"{what[0].upper()}{what[1:]}: {hidden} values are masked. Fill them by "
                ".filled(value), or give "
                "values and mask as two arrays to the programs of pyrovae.observe_part."
            )
        data = data.data
    elif hasattr(data, "toarray"):  # SciPy sparse
        data = data.toarray()
    elif hasattr(data, "to_numpy"):  # pandas and polars
        data = data.to_numpy()
        if data.dtype == object:
            raise TypeError(
                f"{what} have columns that hold missing values or no numbers. Select the numeric "
                "columns and fill what is missing."
            )
    if not isinstance(data, np.ndarray):
        raise TypeError(
            f"{what} must be an array, a tensor, a tuple of them, a Dataset or a DataLoader, found "
            f"{type(data).__name__}."
        )
    return _from_array(data, what)


def _from_array(array: np.ndarray, what: str) -> Tensor:
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "c":
        raise TypeError(_complex(what, array.dtype))
    if kind not in "buif":
        raise TypeError(f"{what} have no numeric dtype: found {array.dtype}.")
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
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.dtype == torch.uint64 and tensor.numel() and int(tensor.view(torch.int64).min()) < 0:
        raise ValueError(_too_large(what, "more than 2**63 - 1"))
    if tensor.dtype in (torch.uint16, torch.uint32, torch.uint64):
        tensor = tensor.to(torch.int64)
    return tensor


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
