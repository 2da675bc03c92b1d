"""Folders of images of any mode and depth that Pillow reads."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.data.rows import Rows
from pyrovae.data.splits import PARTS

__all__ = ["ImageRows", "read_folder", "shrink"]

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}
_WIDE = 2**16 - 1  # the largest grey level of 16 bits


class ImageRows(Rows):
    """Images in files, each read where it is used: ``(N, H, W)`` or ``(N, 3, H, W)``.

    Images of 8 bits come as uint8, those of 16 bits as uint16, and others as float32, as they are.

    Args:
        files: The images, in their order.
        size: Edge to shrink square images to.

    Raises:
        ValueError: If one is damaged or has several frames, or they differ in size or depth.
    """

    def __init__(self, files: list[Path], size: int | None = None):
        self.files, self.size = files, size
        modes = {file: _mode(file) for file in files}
        # Pillow opens some images of 16 bits in the mode of 32.
        narrow = "I" if any(mode == "I" for mode, _ in modes.values()) else "16"
        kinds = {narrow if mode == "I?" else mode for mode, _ in modes.values()}
        depths = {_DEPTHS.get(kind, "8-bit") for kind in kinds}
        if len(depths) > 1:
            raise ValueError(
                f"Images must have one depth, found {' and '.join(sorted(depths))} ones in "
                f"{files[0].parent}. Convert them to one."
            )
        self.mode = "RGB" if "RGB" in kinds else None
        self.dtype = {"8-bit": torch.uint8, "16-bit": torch.uint16}.get(depths.pop(), torch.float32)
        first, edges = files[0], modes[files[0]][1]
        for file, (_, other) in modes.items():
            if size is None and other != edges:
                square = all(width == height for _, (width, height) in modes.values())
                advice = (
                    "Give size= (--data_size on the command line) to shrink these squares to one."
                    if square
                    else "Crop or resize them to one size first; squares of several sizes can be "
                    "shrunk by size= (--data_size on the command line)."
                )
                raise ValueError(
                    f"Images must have one size: {first.name} is {edges[0]} x {edges[1]}, "
                    f"{file.name} is {other[0]} x {other[1]}. {advice}"
                )
        plane = (edges[1], edges[0]) if size is None else (size, size)
        self.shape = (len(files), 3, *plane) if self.mode else (len(files), *plane)

    def read(self, index: np.ndarray) -> Tensor:
        return torch.stack([self._image(self.files[i]) for i in index])

    def _image(self, file: Path) -> Tensor:
        image = _read_image(file)
        if self.mode:
            image = image.convert(self.mode)
        if self.size is not None:
            return shrink(image, self.size, self.dtype)
        return _pixels(image, self.dtype)


_DEPTHS = {"16": "16-bit", "F": "floating", "I": "32-bit"}


def _mode(file: Path) -> tuple[str, tuple[int, int]]:
    """``"L"``, ``"RGB"``, ``"16"``, ``"F"``, ``"I"``, or ``"I?"`` where 16 bits suffice, and width
    and height.
    """
    from PIL import Image

    try:
        with Image.open(file) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                raise ValueError(f"The image {file} holds {frames} frames. Save each as a file.")
            mode, size = image.mode, image.size
            if mode == "I":
                levels = np.array(image)
                low, high = levels.min(), levels.max()
                mode = "I?" if low >= 0 and high <= _WIDE else "I"
    except OSError as error:
        raise ValueError(f"Cannot read the image {file}: it is damaged or no image.") from error
    if mode.startswith("I;"):
        return "16", size
    if mode in ("I?", "I", "F"):
        return mode, size
    return "L" if mode in ("1", "L", "LA", "La") else "RGB", size


def _read_image(file: Path) -> Any:
    """A PIL image: ``"L"`` or ``"RGB"`` of 8 bits, or ``"F"``, the levels of other depths."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            # Pillow clips other depths to 8 bits instead of scaling them.
            if image.mode not in ("I", "F") and not image.mode.startswith("I;"):
                return image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB")
            return Image.fromarray(np.array(image).astype(np.float32))
    except OSError as error:
        raise ValueError(f"Cannot read the image {file}: it is damaged or no image.") from error


def read_folder(path: Path, size: int | None = None) -> dict[str, Any]:
    """The images of a folder, in the order of their names, as :class:`ImageRows`.

    Subfolders ``train`` and ``test`` (and ``valid``) become parts; else all images below the folder
    are one array ``x``. Where each image lies in a folder of its class, ``*_labels`` count the
    classes in the order of their names, and ``classes`` names them. Floating images and those of 32
    bits that leave [0, 1] are scaled to it by the smallest and largest value of all.

    Args:
        path: The folder.
        size: Shrink square images to this edge.

    Raises:
        ValueError: If there are no images, one is damaged, or they differ in size or depth.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in "ab":
        ...         Image.new("L", (4, 3), color=200).save(f"{folder}/{name}.png")
        ...     read_folder(Path(folder))["x"].shape  # height before width
        (2, 3, 4)
    """
    parts = [part for part in PARTS if (path / part).is_dir()]
    folders = {part: path / part for part in parts} if "train" in parts else {"x": path}
    files = {part: _files(folder) for part, folder in folders.items()}
    rows: dict[str, Any] = {part: ImageRows(found, size) for part, found in files.items()}
    if all(images.dtype == torch.float32 for images in rows.values()):
        rows = _scaled(rows, path)
    classes = {part: _classes(files[part], folder) for part, folder in folders.items()}
    if any(names is None for names in classes.values()):
        return rows
    names = sorted({name for found in classes.values() for name in found or ()})
    if len(names) < 2:
        return rows
    for part, found in classes.items():
        rows[f"{part}_labels"] = torch.tensor([names.index(name) for name in found or ()])
    return {**rows, "classes": tuple(names)}


def _files(folder: Path) -> list[Path]:
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in _SUFFIXES)
    if not files:
        raise ValueError(f"No images in {folder}: expected files such as .png or .jpg.")
    return files


def _classes(files: list[Path], folder: Path) -> list[str] | None:
    """The folder of each image below ``folder``; None if one lies in no such folder."""
    parents = [file.relative_to(folder).parts[:-1] for file in files]
    return None if any(not parts for parts in parents) else [parts[0] for parts in parents]


def _scaled(rows: dict[str, Any], path: Path) -> dict[str, Any]:
    low, high = np.inf, -np.inf
    for images in rows.values():
        for _, piece in images.pieces():
            low, high = min(low, piece.min().item()), max(high, piece.max().item())
    if low >= 0 and high <= 1:
        return rows
    if not (np.isfinite(low) and np.isfinite(high)) or low == high:
        raise ValueError(
            f"The floating images in {path} have values from {low:g} to {high:g}, which is no "
            "range to scale to [0, 1]. Remove what is not finite, or give an array file."
        )
    return {
        part: images.map(lambda x, _: (x - low) / (high - low)) for part, images in rows.items()
    }


def shrink(image: Any, size: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    """A square PIL image as grey levels ``(size, size)`` or ``(3, size, size)``, shrunk by exact
    area averaging.

    Raises:
        ValueError: If the image is not square, or smaller than ``size``.
    """
    from PIL import Image

    if image.width != image.height or image.width < size or size < 1:
        raise ValueError(
            f"Cannot shrink an image of {image.width} x {image.height} pixels to {size} x {size}: "
            "only larger squares can be shrunk. Crop or resize it first."
        )
    return _pixels(image.resize((size, size), Image.Resampling.BOX), dtype)


def _pixels(image: Any, dtype: torch.dtype) -> Tensor:
    array = np.array(image)
    if dtype == torch.uint16:
        array = array.round().astype(np.uint16)
    tensor = torch.from_numpy(array)
    return tensor.movedim(-1, 0).contiguous() if tensor.dim() == 3 else tensor
