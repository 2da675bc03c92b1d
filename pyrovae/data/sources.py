"""Data sets by name or by path."""

import difflib
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyrovae.data import torchvision_sets
from pyrovae.data.files import read_file, read_folder
from pyrovae.data.splits import Splits, check, split

__all__ = ["NAMES", "load"]

NAMES = ("digits", *torchvision_sets.NAMES)
"""Data sets that :func:`load` knows by name."""

_DEBIAN = {"fashion-mnist": Path("/usr/share/datasets/fashion-mnist")}


def load(
    name: str | Path,
    *,
    root: str | Path | None = None,
    download: bool = False,
    size: int | None = None,
    valid_size: float | int | None = None,
    test_size: float | int | None = None,
    seed: int = 0,
) -> Splits:
    """A data set in three parts: grey levels scaled to [0, 1], anything else as it is.

    - ``"digits"``: scikit-learn's embedded 1,797 handwritten digits, 8 x 8, 17 grey levels.
    - ``"mnist"``, ``"fashion-mnist"``, ``"kmnist"``, ``"emnist-letters"`` (or another of its six
      kinds), ``"omniglot"``: by torchvision from ``root``, or from ``root/NAME.npz`` where there is
      one. Ink is bright. EMNIST is turned upright. Omniglot is shrunk from 105 x 105 to 28 x 28 by
      area averaging; its evaluation alphabets are the test part.
    - a path to an ``.npy``, ``.npz`` or ``.pt`` file or to a folder of images: see
      :mod:`pyrovae.data.files`.

    What comes without a test or validation part is cut at random, one datum in six each, unless
    said otherwise.

    Args:
        name: A name of :data:`NAMES`, or a path.
        root: Where named data sets lie; by default ``$PYROVAE_DATA``, else ``~/.cache/pyrovae``. A
            folder that holds the idx files themselves, gzipped or not, will do.
        download: Fetch a torchvision data set that is not there.
        size: Shrink square images to this edge: Omniglot and folders.
        valid_size, test_size, seed: How to cut, as in :func:`split`.

    Raises:
        ValueError: If the name is unknown, a file is damaged, or the data are empty or not finite.
        FileNotFoundError: If nothing is there.

    >>> load("digits")
    Splits(digits: train 1,247, valid 250, test 300; each (8, 8))
    """
    options: dict[str, Any] = {"valid_size": valid_size, "test_size": test_size, "seed": seed}
    text = str(name)
    if text == "digits":
        return _digits(options)
    if text in NAMES:
        folder = _root(text, root)
        if (folder / f"{text}.npz").is_file():
            return _parts(read_file(folder / f"{text}.npz"), text, options)
        arrays = torchvision_sets.read_torchvision(text, folder, download=download, size=size)
        return _parts(arrays, text, options)
    path = Path(name).expanduser()
    if path.is_dir():
        return _parts(read_folder(path, size), path.resolve().name, options)
    if path.is_file():
        return _parts(read_file(path), path.stem, options)
    if path.suffix or len(path.parts) > 1:
        raise FileNotFoundError(f"No data file or folder at {path}.")
    close = difflib.get_close_matches(text, NAMES, 1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(
        f"Unknown data set {text!r}: neither a file nor one of {', '.join(NAMES)}.{hint}"
    )


def _root(name: str, root: str | Path | None) -> Path:
    if root is not None:
        return Path(root).expanduser()
    folder = Path(os.environ.get("PYROVAE_DATA") or Path.home() / ".cache" / "pyrovae")
    debian = _DEBIAN.get(name)
    return debian if debian is not None and debian.is_dir() and not folder.is_dir() else folder


def _digits(options: dict[str, Any]) -> Splits:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    images = torch.as_tensor(bunch.images, dtype=torch.float32) / 16
    return split(images, torch.as_tensor(bunch.target), name="digits", levels=17, **options)


def _parts(arrays: dict[str, Tensor], name: str, options: dict[str, Any]) -> Splits:
    """Splits from arrays train, valid, test (with labels beside them), or from a single one, x."""
    raw = {k: a for k, a in arrays.items() if not k.endswith("labels")}
    y = {
        k.removesuffix("_labels"): _conditions(a) for k, a in arrays.items() if k.endswith("labels")
    }
    levels = _grey_levels(list(raw.values()))
    x = {k: a.float() / (levels - 1) if levels else _floating(a, k, name) for k, a in raw.items()}
    first = "train" if "train" in x else "x"
    if first not in x:
        raise ValueError(
            f"{name} holds {', '.join(x)} but no train array. Add one, or give a single array."
        )
    if {"valid", "test"} <= set(x):
        labels = (y[first], y["valid"], y["test"]) if {first, "valid", "test"} <= set(y) else None
        return Splits(x[first], x["valid"], x["test"], name, levels, labels)
    if "valid" in x:
        raise ValueError(
            f"{name} has train and valid but no test array. Add one, or give a single array."
        )
    return split(
        x[first],
        y.get(first),
        test=x.get("test"),
        test_labels=y.get("test"),
        name=name,
        levels=levels,
        **options,
    )


def _conditions(labels: Tensor) -> Tensor:
    """Integers as class labels ``(N,)``, all else as covariates ``(N, C)``."""
    if labels.dim() == 1 and not labels.is_floating_point():
        return labels.long()
    return labels.float().reshape(labels.shape[0], -1)


def _grey_levels(arrays: list[Tensor]) -> int | None:
    """How many grey levels the arrays can hold if they are images of 8 or 16 bits, else None."""
    for dtype, levels in ((torch.uint8, 2**8), (torch.uint16, 2**16)):
        images = all(a.dtype == dtype and a.dim() > 2 for a in arrays)
        if images and any(a.numel() and int(a.int().max()) > 1 for a in arrays):
            return levels
    return None


def _floating(array: Tensor, part: str, name: str) -> Tensor:
    return check(
        array if array.dtype == torch.float64 else array.float(), f"the {part} part of {name}"
    )
