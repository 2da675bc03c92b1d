"""Array files.

What a file may hold:

- ``.npy`` and ``.pt``: one array ``(N, *data_shape)``; a ``.pt`` file may hold a dictionary of
  arrays instead. An ``.npy`` file of more than 256 MiB is read batch by batch; all others are read
  as a whole.
- ``.npz`` and dictionaries: one array of any name, or arrays named ``train``, ``valid`` and
  ``test`` (also ``x_train``, ``x_test``, ...), with labels named ``train_labels`` or ``y_train``:
  integers ``(N,)`` are classes, floating numbers ``(N,)`` or ``(N, C)`` are covariates. Names in
  ``*_bits`` hold eight black and white pixels a byte, with their shape in ``image_shape``.
  ``data``, ``indices``, ``indptr`` and ``shape`` are sparse rows, as :func:`scipy.sparse.save_npz`
  writes them.

Nothing that could run code is read: neither pickles nor objects. Unsigned integers of 8 or 16 bits
with two or more dimensions a datum that go above 1 are grey levels; they are divided by the largest
that their bits can hold, 255 or 65535. All else is used as it is. Colour channels go first.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.data.arrays import as_tensor, check_size
from pyrovae.data.rows import Rows, is_small, rows_of
from pyrovae.data.splits import PARTS

__all__ = ["read_file"]

_SPARSE = {"data", "indices", "indptr", "shape"}


def read_file(path: Path) -> dict[str, Any]:
    """The arrays of a file, under the names ``x`` or ``train``, ``valid``, ``test`` and their
    ``*_labels``.

    Raises:
        ValueError: If the file is of another kind, damaged, or holds no such arrays.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "data.npz"
        ...     np.savez(path, x_train=np.zeros((8, 3)), y_train=np.arange(8))
        ...     sorted(read_file(path))
        ['train', 'train_labels']
    """
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".npz", ".pt", ".pth"):
        raise ValueError(
            f"Cannot read {path}: expected an .npy, .npz, .pt, .csv, .tsv, .parquet or .h5ad file, "
            "or a folder of images."
        )
    try:
        content = _content(path, suffix)
    except Exception as error:  # zip, pickle, header and type errors, each of its own class
        raise ValueError(f"Cannot read {path}: {_reason(error)}") from error
    if isinstance(content, Rows):
        return {"x": _channels_first(content)}
    if not isinstance(content, Mapping):
        content = {"x": content}
    return _named({str(k): _tensor(v, f"{k} in {path}") for k, v in content.items()}, path)


def _content(path: Path, suffix: str) -> Any:
    if suffix in (".pt", ".pth"):
        return torch.load(path, map_location="cpu", weights_only=True)
    if suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        try:
            check_size(size, (), "its arrays")
        except ValueError as error:
            raise _TooLarge from error
        loaded = np.load(path, allow_pickle=False)
        return {name: loaded[name] for name in loaded.files}
    if not is_small(path.stat().st_size):
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        return rows_of(mapped, f"The data in {path}", levels=mapped.ndim > 2)
    return np.load(path, allow_pickle=False)


class _TooLarge(Exception):
    """An archive that does not fit into memory."""


def _reason(error: Exception) -> str:
    """What is wrong with a file, without advice to load it in an unsafe way."""
    if isinstance(error, _TooLarge):
        return (
            "its arrays do not fit into memory, and those of an .npz archive cannot be read in "
            "part. Save the data as an .npy file, which is read batch by batch."
        )
    said = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    if any(word in said.lower() for word in ("pickle", "weights_only", "weights only")):
        return (
            "it holds Python objects, or is damaged. Loading objects could run code, so only plain "
            "arrays are read: save the data by numpy.save, as numbers."
        )
    return f"{said}. It is damaged, or holds something else than plain arrays."


def _tensor(value: Any, what: str) -> Tensor | np.ndarray:
    if not isinstance(value, Tensor):
        value = np.asarray(value)
        if value.dtype.kind in "US":  # names, such as those of classes
            return value
        if value.dtype.kind == "u" and value.dtype.itemsize == 2 and value.ndim > 2:
            return torch.from_numpy(value.astype(np.uint16))  # images, scaled by their range later
    elif value.dtype == torch.uint16 and value.dim() > 2:
        return value
    try:
        return as_tensor(value, what)
    except TypeError as error:
        raise ValueError(f"Expected numbers: {error}") from error


def _named(arrays: dict[str, Any], path: Path) -> dict[str, Tensor]:
    order = arrays.get("format")
    texts = [k for k, a in arrays.items() if not isinstance(a, Tensor)]
    arrays = {k: a for k, a in arrays.items() if isinstance(a, Tensor)}
    if isinstance(order, np.ndarray) and order.tolist() not in (b"csr", "csr"):
        raise ValueError(
            f"Expected sparse rows (csr) in {path}, found {order.tolist()!r}. Convert by .tocsr()."
        )
    if set(arrays) >= _SPARSE:
        found = {
            "x": _dense(arrays, path),
            **({"labels": arrays["labels"]} if "labels" in arrays else {}),
        }
    else:
        shape = arrays.pop("image_shape", None)
        found = {}
        for name, array in arrays.items():
            bits = name.endswith("_bits")
            if bits and shape is not None:
                array = _unpack(array, [int(s) for s in shape], f"{name} in {path}")
            common = _common_name(name.removesuffix("_bits") if bits else name)
            if common in found:
                raise ValueError(
                    f"{path} has two arrays for {common!r}, one of them {name!r}. Leave one out."
                )
            found[common] = array
    x = {k: a for k, a in found.items() if a.dim() > 1 and not k.endswith("labels")}
    if not set(x) & {*PARTS, "x"}:
        if len(x) != 1:
            listed = [f"{k} {tuple(a.shape)}" for k, a in arrays.items()]
            listed += [f"{k}, which holds texts" for k in texts]
            raise ValueError(
                f"Expected one array of data of shape (N, ...) in {path}, or arrays named train, "
                f"valid and test; found {', '.join(listed) or 'none'}."
                + " Convert texts that are numbers by .astype(float), and save a table as .csv."
                * bool(texts)
            )
        x = {"x": next(iter(x.values()))}
    x = {k: _channels_first(a) for k, a in x.items() if k in (*PARTS, "x")}
    labels = {
        ("x_labels" if k == "labels" else k): a for k, a in found.items() if k.endswith("labels")
    }
    return {**x, **{k: a for k, a in labels.items() if a.dim() in (1, 2)}}


def _common_name(name: str) -> str:
    kind, _, part = name.partition("_")
    if part in PARTS and kind in ("x", "X"):
        return part
    if part in PARTS and kind in ("y", "Y"):
        return f"{part}_labels"
    return "labels" if name in ("y", "labels", "targets") else name


def _unpack(bits: Tensor, shape: list[int], what: str) -> Tensor:
    count = int(np.prod(shape))
    if bits.dtype != torch.uint8 or bits.dim() != 2 or bits.shape[1] != -(-count // 8):
        raise ValueError(
            f"Expected packed uint8 of shape (N, {-(-count // 8)}) for images {tuple(shape)}, "
            f"found {bits.dtype} {tuple(bits.shape)} as {what}."
        )
    return torch.from_numpy(np.unpackbits(bits.numpy(), axis=1, count=count)).reshape(-1, *shape)


def _dense(arrays: dict[str, Tensor], path: Path) -> Tensor:
    from scipy.sparse import csr_matrix

    shape = tuple(int(s) for s in arrays["shape"])
    try:
        rows = csr_matrix(
            tuple(arrays[k].numpy() for k in ("data", "indices", "indptr")), shape=shape
        )
        rows.check_format()
    except ValueError as error:
        raise ValueError(f"The sparse rows in {path} do not fit together: {error}.") from error
    return torch.from_numpy(rows.toarray())


def _channels_first(x: Tensor | Rows) -> Any:
    if x.dim() != 4 or x.shape[-1] not in (1, 3, 4) or x.shape[1] in (1, 3, 4):
        return x
    if isinstance(x, Tensor):
        return x.movedim(-1, 1).contiguous()
    _, height, width, channels = x.shape
    return x.map(lambda y, _: y.movedim(-1, 1).contiguous(), data_shape=(channels, height, width))
