"""The MNIST family and Omniglot, read by torchvision from a local folder."""

import contextlib
import gzip
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyrovae.data.images import shrink

__all__ = ["NAMES", "read_torchvision"]

_FAMILY = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}
_EMNIST = ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")

NAMES = (*_FAMILY, *(f"emnist-{kind}" for kind in _EMNIST), "omniglot")


def read_torchvision(
    name: str, root: Path, *, download: bool = False, size: int | None = None
) -> dict[str, Tensor]:
    """Arrays ``train``, ``test`` of uint8 grey levels, upright, ink bright, and their ``*_labels``.

    Args:
        name: One of :data:`NAMES`.
        root: Folder in which torchvision keeps its data sets, or one that holds the idx files
            themselves, gzipped or not.
        download: Fetch what is not there into ``root``.
        size: Omniglot: edge to shrink to, 28 unless said.

    Raises:
        FileNotFoundError: If the data set is not in ``root`` and ``download`` is false.
        ValueError: If its files are damaged.
    """
    from torchvision import datasets

    if name == "omniglot":

        def read(folder: Path, train: bool) -> tuple[Tensor, Tensor]:
            part = datasets.Omniglot(str(folder), background=train, download=download)
            return _draw(Path(part.target_folder).rglob("*.png"), size or 28)

        kind = "omniglot-py"
    elif name in _FAMILY:
        kind = _FAMILY[name]

        def read(folder: Path, train: bool) -> tuple[Tensor, Tensor]:
            part = getattr(datasets, kind)(str(folder), train=train, download=download)
            return part.data, part.targets
    else:
        kind = "EMNIST"

        def read(folder: Path, train: bool) -> tuple[Tensor, Tensor]:
            part = datasets.EMNIST(
                str(folder), split=name.removeprefix("emnist-"), train=train, download=download
            )
            return part.data.mT.contiguous(), part.targets  # stored column by column

    with _in_place(root, kind, download) as folder:
        train, test = (_guarded(read, folder, part, name, root) for part in (True, False))
    return {"train": train[0], "train_labels": train[1], "test": test[0], "test_labels": test[1]}


def _guarded(
    read: Callable[..., tuple[Tensor, Tensor]], folder: Path, train: bool, name: str, root: Path
) -> Any:
    try:
        images, labels = read(folder, train)
    except RuntimeError as error:
        if "not found" not in str(error):
            raise ValueError(f"Cannot read {name} in {root}: {error}") from error
        raise FileNotFoundError(
            f"{name} is not in {root}. Say where it is (root=, or --data_root on the command "
            "line), or have it fetched (download=True, or --download)."
        ) from error
    except Exception as error:  # torchvision asserts, unpacks and reshapes whatever bytes it finds
        part = "train" if train else "test"
        raise ValueError(
            f"The {part} files of {name} in {root} are damaged ({type(error).__name__}). Replace "
            "them."
        ) from error
    if images.shape[0] != labels.shape[0]:
        raise ValueError(
            f"{name} in {root} has {images.shape[0]} images but {labels.shape[0]} labels."
        )
    return images, labels


@contextlib.contextmanager
def _in_place(root: Path, kind: str, download: bool) -> Iterator[Path]:
    """``root``, or a temporary folder arranged as torchvision wants it, with the idx files
    unpacked.
    """
    raw = root / kind / "raw"
    folder = next((f for f in (raw, root) if f.is_dir() and _idx_files(f)), None)
    packed = folder is not None and any(f.suffix == ".gz" for f in _idx_files(folder))
    if folder is None or (folder == raw and not packed) or download:
        yield root
        return
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(temporary) / kind / "raw"
        target.mkdir(parents=True)
        for file in _idx_files(folder):
            if file.suffix != ".gz":
                shutil.copyfile(file, target / file.name)
            elif not (folder / file.stem).exists():
                try:
                    with gzip.open(file) as source, open(target / file.stem, "wb") as unpacked:
                        shutil.copyfileobj(source, unpacked)
                except (OSError, EOFError) as error:
                    raise ValueError(f"{file} is damaged: {error}. Replace it.") from error
        yield Path(temporary)


def _idx_files(folder: Path) -> list[Path]:
    return [*folder.glob("*-ubyte"), *folder.glob("*-ubyte.gz")]


def _draw(paths: Iterable[Path], size: int) -> tuple[Tensor, Tensor]:
    """Omniglot's drawings, black ink on white, as uint8 ink, in the order of their names."""
    from PIL import Image

    files = sorted(paths)  # a file system has an order of its own
    characters = {folder: i for i, folder in enumerate(sorted({file.parent for file in files}))}
    images = []
    for file in files:
        with Image.open(file) as image:
            images.append(255 - shrink(image.convert("L"), size))
    return torch.stack(images), torch.tensor([characters[file.parent] for file in files])
