"""Array files and folders of images.

What a file may hold:

- ``.npy`` and ``.pt``: one array ``(N, *data_shape)``; a ``.pt`` file may hold a dictionary of
  arrays instead.
- ``.npz`` and dictionaries: one array of any name, or arrays named ``train``, ``valid`` and
  ``test`` (also ``x_train``, ``x_test``, ...), with labels named ``train_labels`` or ``y_train``:
  integers ``(N,)`` are classes, floating numbers ``(N,)`` or ``(N, C)`` are covariates. Names in
  ``*_bits`` hold eight black and white pixels a byte, with their shape in ``image_shape``.
  ``data``, ``indices``, ``indptr`` and ``shape`` are sparse rows, as :func:`scipy.sparse.save_npz`
  writes them.
- a folder of images: all of one size, grey or RGB; subfolders ``train``, ``valid`` and ``test`` are
  taken as such.

Nothing that could run code is read: neither pickles nor objects. Unsigned integers of 8 or 16 bits
with two or more dimensions a datum that go above 1 are grey levels; they are divided by the largest
that their bits can hold, 255 or 65535. All else is used as it is. Colour channels go first.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.data.arrays import as_tensor

__all__ = ["read_file", "read_folder", "shrink"]

_PARTS = ("train", "valid", "test")
_IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}
_WIDE = 2**16 - 1  # the largest grey level of 16 bits
_SPARSE = {"data", "indices", "indptr", "shape"}


def read_file(path: Path) -> dict[str, Tensor]:
    """The arrays of a file, under the names ``x`` or ``train``, ``valid``, ``test`` and their
    ``*_labels``.

    Raises:
        ValueError: If the file is of another kind, damaged, or holds no such arrays.
    """
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".npz", ".pt", ".pth"):
        raise ValueError(
            f"Cannot read {path}: expected an .npy, .npz or .pt file, or a folder of images."
        )
    try:
        if suffix in (".pt", ".pth"):
            content = torch.load(path, map_location="cpu", weights_only=True)
        else:
            loaded = np.load(path, allow_pickle=False)
            content = loaded if suffix == ".npy" else {name: loaded[name] for name in loaded.files}
    except Exception as error:  # zip, pickle, header and type errors, each of its own class
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise ValueError(
            f"Cannot read {path}: {reason}. It is damaged, or holds something else than plain "
            "arrays."
        ) from error
    if not isinstance(content, Mapping):
        content = {"x": content}
    return _named({str(k): _tensor(v, f"{k} in {path}") for k, v in content.items()}, path)


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
            found[_common_name(name.removesuffix("_bits") if bits else name)] = array
    x = {k: a for k, a in found.items() if a.dim() > 1 and not k.endswith("labels")}
    if not set(x) & {*_PARTS, "x"}:
        if len(x) != 1:
            raise ValueError(
                f"Expected one array of data in {path}, or arrays named train, valid and test; "
                f"found {', '.join(f'{k} {tuple(a.shape)}' for k, a in arrays.items()) or 'none'}."
            )
        x = {"x": next(iter(x.values()))}
    x = {k: _channels_first(a) for k, a in x.items() if k in (*_PARTS, "x")}
    labels = {
        ("x_labels" if k == "labels" else k): a for k, a in found.items() if k.endswith("labels")
    }
    return {**x, **{k: a for k, a in labels.items() if a.dim() in (1, 2)}}


def _common_name(name: str) -> str:
    kind, _, part = name.partition("_")
    if part in _PARTS and kind in ("x", "X"):
        return part
    if part in _PARTS and kind in ("y", "Y"):
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


def _channels_first(x: Tensor) -> Tensor:
    if x.dim() == 4 and x.shape[-1] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        x = x.movedim(-1, 1).contiguous()
    return x


def read_folder(path: Path, size: int | None = None) -> dict[str, Tensor]:
    """The images of a folder, in the order of their names, ``(N, H, W)`` or ``(N, 3, H, W)``.

    They come as uint8, or as uint16 where the files hold 16 bits a pixel.

    Args:
        path: The folder. Subfolders ``train`` and ``test`` (and ``valid``) become parts; else all
            images below it are one array.
        size: Shrink square images to this edge.

    Raises:
        ValueError: If there are no images, one is damaged, or they differ in size or depth.
    """
    parts = [part for part in _PARTS if (path / part).is_dir()]
    if "train" in parts:
        return {part: _read_images(path / part, size) for part in parts}
    return {"x": _read_images(path, size)}


def _read_images(path: Path, size: int | None) -> Tensor:
    files = sorted(f for f in path.rglob("*") if f.suffix.lower() in _IMAGES)
    if not files:
        raise ValueError(f"No images in {path}: expected files such as .png or .jpg.")
    images = [_read_image(file) for file in files]
    modes = {image.mode for image in images}
    if "F" in modes and modes != {"F"}:
        raise ValueError(
            f"Images must have one depth, found 16-bit and 8-bit ones in {path}. Convert them to "
            "one of the two."
        )
    mode = "RGB" if "RGB" in modes else images[0].mode
    arrays = [
        _pixels(image.convert(mode)) if size is None else shrink(image.convert(mode), size)
        for image in images
    ]
    for file, array in zip(files, arrays, strict=True):
        if array.shape != arrays[0].shape:
            raise ValueError(
                f"Images must have one size: {files[0].name} is {_edges(arrays[0])}, "
                f"{file.name} is {_edges(array)}. "
                "Give size= (--data_size on the command line) to shrink square images to one edge."
            )
    return torch.stack(arrays)


def _read_image(file: Path) -> Any:
    """A PIL image: ``"L"`` or ``"RGB"`` of 8 bits, or ``"F"`` with the grey levels 0 to 65535 of 16
    bits.
    """
    from PIL import Image

    try:
        with Image.open(file) as image:
            # Pillow clips these to 8 bits instead of scaling them.
            if image.mode not in ("I", "F") and not image.mode.startswith("I;"):
                return image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
            mode, levels = image.mode, np.array(image)
    except OSError as error:
        raise ValueError(f"Cannot read the image {file}: it is damaged or no image.") from error
    if mode == "F" or levels.min() < 0 or levels.max() > _WIDE:
        raise ValueError(
            f"The image {file} holds {'floating' if mode == 'F' else '32-bit'} numbers, whose "
            "range is not known. Convert it to 8 or 16 bits, or give an array file."
        )
    return Image.fromarray(levels.astype(np.float32))


def shrink(image: Any, size: int) -> Tensor:
    """A square PIL image as grey levels ``(size, size)`` or ``(3, size, size)``, shrunk by exact
    area averaging.

    Raises:
        ValueError: If the image is not square, or smaller than ``size``.
    """
    from PIL import Image

    if image.width != image.height or image.width < size or size < 1:
        raise ValueError(
            f"Cannot shrink an image of {image.width} x {image.height} pixels to {size} x {size}."
        )
    return _pixels(image.resize((size, size), Image.Resampling.BOX))


def _pixels(image: Any) -> Tensor:
    wide = image.mode == "F"
    array = np.array(image)
    array = torch.from_numpy(array.round().astype(np.uint16) if wide else array.astype(np.uint8))
    return array.movedim(-1, 0).contiguous() if array.dim() == 3 else array


def _edges(array: Tensor) -> str:
    return f"{array.shape[-1]} x {array.shape[-2]}"
