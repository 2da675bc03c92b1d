"""Data sets by name or by path."""

import difflib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyrovae.data import torchvision_sets
from pyrovae.data.checks import check
from pyrovae.data.files import read_file
from pyrovae.data.images import read_folder
from pyrovae.data.rows import Rows, is_small
from pyrovae.data.splits import Splits, split
from pyrovae.data.tables import SUFFIXES, read_annotated, read_table

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
    columns: Sequence[str] | None = None,
    labels: str | None = None,
    covariates: Sequence[str] | None = None,
    layer: str | None = None,
    reading: Callable[[Any], Any] | None = None,
) -> Splits:
    """A data set in three parts: grey levels scaled to [0, 1], anything else as it is.

    - ``"digits"``: scikit-learn's embedded 1,797 handwritten digits, 8 x 8, 17 grey levels.
    - ``"mnist"``, ``"fashion-mnist"``, ``"kmnist"``, ``"emnist-letters"`` (or another of its six
      kinds), ``"omniglot"``: by torchvision from ``root``, or from ``root/NAME.npz`` where there is
      one. Ink is bright. EMNIST is turned upright. Omniglot is shrunk from 105 x 105 to 28 x 28 by
      area averaging; its evaluation alphabets are the test part.
    - a path to an ``.npy``, ``.npz`` or ``.pt`` file: see :mod:`pyrovae.data.files`.
    - a path to a ``.csv``, ``.tsv`` or ``.parquet`` table, whose first line names the columns, or
      to an ``.h5ad`` file.
    - a folder of images, all of one size, of any mode and depth that Pillow reads: see
      :func:`pyrovae.data.images.read_folder`. Folders of classes give labels.

    What comes without a test or validation part is cut at random, one datum in six each, unless
    said otherwise.

    Args:
        name: A name of :data:`NAMES`, or a path.
        root: Where named data sets lie; by default ``$PYROVAE_DATA``, else ``~/.cache/pyrovae``. A
            folder that holds the idx files themselves, gzipped or not, will do.
        download: Fetch a torchvision data set that is not there.
        size: Shrink square images to this edge: Omniglot and folders.
        valid_size, test_size, seed: How to cut, as in :func:`split`.
        columns: Of a table: the columns that are the data; default all but those below.
        labels: Of a table or an ``.h5ad`` file (a column of ``obs``): the column of the classes.
        covariates: Likewise, columns that a conditional model is given: numbers as they are, and a
            column for each class of the others.
        layer: Of an ``.h5ad`` file: the layer that is the data; default ``X``.
        reading: Of a table: what makes numbers of its frame, with NaN in missing cells, such as
            :meth:`Columns.read <pyrovae.likelihoods.Columns.read>`.

    Raises:
        TypeError: If a column of the data holds no numbers.
        ValueError: If the name is unknown, a file is damaged, or the data are empty or not finite.
        FileNotFoundError: If nothing is there.

    >>> load("digits")
    Splits(digits: train 1,247, valid 250, test 300; each (8, 8))
    """
    options: dict[str, Any] = {"valid_size": valid_size, "test_size": test_size, "seed": seed}
    given: dict[str, Any] = {"columns": columns, "labels": labels, "covariates": covariates}
    given |= {"layer": layer, "reading": reading}
    given = {k: v for k, v in given.items() if v is not None}
    text = str(name)
    if text in NAMES:
        _check_options(given, (), text)
    path = Path(name).expanduser()
    if text == "digits":
        found = _digits(options)
    elif text in NAMES:
        found = _parts(_named(text, _root(text, root), download, size), text, options)
    elif path.exists():
        options["missing"] = reading is not None
        found = _parts(_read(path, size, given), path.resolve().stem, options)
    else:
        raise _not_found(text, path)
    if size is not None and found.data_shape[-2:] != (size, size):
        raise ValueError(
            f"size={size} does not go with {text}, whose data have the shape {found.data_shape}: "
            "only folders of images and Omniglot are shrunk. Leave it out."
        )
    return found


def _named(name: str, folder: Path, download: bool, size: int | None) -> dict[str, Tensor]:
    """The arrays of a data set of torchvision's, from an .npz file where there is one."""
    if (folder / f"{name}.npz").is_file():
        return read_file(folder / f"{name}.npz")
    return torchvision_sets.read_torchvision(name, folder, download=download, size=size)


def _not_found(text: str, path: Path) -> Exception:
    if path.suffix or len(path.parts) > 1:
        return FileNotFoundError(f"No data file or folder at {path}.")
    close = difflib.get_close_matches(text, NAMES, 1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return ValueError(
        f"Unknown data set {text!r}: neither a file nor one of {', '.join(NAMES)}.{hint}"
    )


def _read(path: Path, size: int | None, given: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a file or folder, by the reader of its kind."""
    suffix = path.suffix.lower()
    if path.is_file() and suffix in SUFFIXES:
        _check_options(given, ("columns", "labels", "covariates", "reading"), path)
        return read_table(path, **given)
    if path.is_file() and suffix == ".h5ad":
        _check_options(given, ("layer", "labels", "covariates"), path)
        return read_annotated(path, **given)
    _check_options(given, (), path)
    return read_folder(path, size) if path.is_dir() else read_file(path)


def _check_options(given: dict[str, Any], taken: tuple[str, ...], source: Any) -> None:
    for name in given:
        if name not in taken:
            raise ValueError(
                f"{name}= does not go with {source}: columns, labels and covariates are those of "
                "tables (.csv, .tsv, .parquet), and layer, labels and covariates those of .h5ad "
                "files. Leave it out."
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


def _parts(arrays: dict[str, Any], name: str, options: dict[str, Any]) -> Splits:
    """Splits from arrays train, valid, test (with labels beside them), or from a single one, x."""
    names = {kind: arrays.pop(kind, ()) for kind in ("classes", "columns")}
    raw = {k: a for k, a in arrays.items() if not k.endswith("labels")}
    y = {
        k.removesuffix("_labels"): _conditions(a) for k, a in arrays.items() if k.endswith("labels")
    }
    levels = _grey_levels(list(raw.values()), name)
    gaps = options.get("missing", False)
    x = {k: _scaled(a, levels) if levels else _floating(a, k, name, gaps) for k, a in raw.items()}
    first = "train" if "train" in x else "x"
    if first not in x:
        raise ValueError(
            f"{name} holds {', '.join(x)} but no train array. Add one, or give a single array."
        )
    if {"valid", "test"} <= set(x):
        labels = (y[first], y["valid"], y["test"]) if {first, "valid", "test"} <= set(y) else None
        return Splits(x[first], x["valid"], x["test"], name, levels, labels, **names)
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
        **names,
        **options,
    )


def _conditions(labels: Tensor) -> Tensor:
    """Integers as class labels ``(N,)``, all else as covariates ``(N, C)``."""
    if labels.dim() == 1 and not labels.is_floating_point():
        return labels.long()
    return labels.float().reshape(labels.shape[0], -1)


def _grey_levels(arrays: list[Tensor | Rows], name: str) -> int | None:
    """How many grey levels the arrays can hold if they are images of 8 or 16 bits, else None."""
    for dtype, levels in ((torch.uint8, 2**8), (torch.uint16, 2**16)):
        images = [a for a in arrays if a.dtype == dtype and a.dim() > 2]
        if any(map(_goes_above_one, images)):
            if len(images) < len(arrays):
                kinds = sorted({str(a.dtype).removeprefix("torch.") for a in arrays})
                raise ValueError(
                    f"The parts of {name} hold numbers of different kinds: {' and '.join(kinds)}. "
                    f"Grey levels of {dtype.itemsize * 8} bits are scaled to [0, 1], and others "
                    "are not. Convert all parts to one kind."
                )
            return levels
    return None


def _goes_above_one(x: Tensor | Rows) -> bool:
    pieces = x.pieces() if isinstance(x, Rows) else [(None, x)]
    return any(piece.numel() and int(piece.int().max()) > 1 for _, piece in pieces)


def _scaled(x: Tensor | Rows, levels: int) -> Tensor | Rows:
    """Grey levels in [0, 1]; rows of few bytes are read here."""

    def scale(some: Tensor, _: Any = None) -> Tensor:
        return some.float() / (levels - 1)

    return _in_memory(x.map(scale, torch.float32)) if isinstance(x, Rows) else scale(x)


def _floating(x: Tensor | Rows, part: str, name: str, missing: bool) -> Tensor | Rows:
    if isinstance(x, Rows):
        x = _in_memory(x)
    x = x if x.dtype == torch.float64 else x.to(torch.float32)
    return check(x, f"the {part} part of {name}", missing=missing)


def _in_memory(rows: Rows) -> Tensor | Rows:
    return rows[:] if is_small(rows.nbytes) else rows
