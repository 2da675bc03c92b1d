"""A data set in three parts."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pyrovae.data.arguments import as_arguments
from pyrovae.data.arrays import as_tensor
from pyrovae.data.binary import binarize, resample
from pyrovae.data.checks import check, check_labels, is_grey
from pyrovae.data.dequantization import Dequantize, dequantize
from pyrovae.data.rows import Rows

__all__ = ["PARTS", "Splits", "split"]

PARTS = ("train", "valid", "test")


@dataclass(frozen=True, repr=False)
class Splits:
    """Training, validation and test data, each ``(N, *data_shape)``.

    Args:
        train, valid, test: Floating-point tensors of one shape a datum, or
            :class:`~pyrovae.data.rows.Rows` where they are too large for memory.
        name: What to call the data set.
        levels: Number of grey levels that were scaled to [0, 1], such as 256; None for data used as
            they are.
        labels: Class labels, integers ``(N,)``, or covariates, floating ``(N, C)``, of the three
            parts, where there are any.
        transform: What :func:`pyrovae.fit` applies to each training batch (``transform=``), or
            None.
        dequantized: Whether noise turns the levels into real numbers, as :meth:`dequantize` makes
            it.
        classes: Names of the classes that the labels count, where they are known.
        missing: Whether NaN is a missing cell, for likelihoods that take such.
        columns: Names of a table's columns, where they are known.

    Raises:
        ValueError: If a part is empty or not finite, shapes differ, or there are not as many labels
            as data.

    Example:
        See :func:`split`, which makes it.
    """

    train: Tensor | Rows
    valid: Tensor | Rows
    test: Tensor | Rows
    name: str = "data"
    levels: int | None = None
    labels: tuple[Tensor, Tensor, Tensor] | None = None
    transform: Any = None
    dequantized: bool = False
    classes: tuple[str, ...] = ()
    missing: bool = False
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part in PARTS:
            what = f"the {part} part of {self.name}"
            check(getattr(self, part), what, missing=self.missing)
        shapes = {part: tuple(getattr(self, part).shape[1:]) for part in PARTS}
        if len(set(shapes.values())) > 1:
            raise ValueError(
                f"The parts of {self.name} must have one shape a datum, found {shapes}."
            )
        for part, y in zip(PARTS, self.labels or (), strict=self.labels is not None):
            if y.shape[:1] != getattr(self, part).shape[:1]:
                raise ValueError(
                    f"The {part} part of {self.name} has {getattr(self, part).shape[0]} data but "
                    f"labels of shape {tuple(y.shape)}."
                )

    def __repr__(self) -> str:
        sizes = ", ".join(f"{part} {getattr(self, part).shape[0]:,}" for part in PARTS)
        layout = ", channels first" if self.is_colour else ""
        return f"Splits({self.name}: {sizes}; each {self.data_shape}{layout})"

    @property
    def data_shape(self) -> tuple[int, ...]:
        """Shape of one datum."""
        return tuple(self.train.shape[1:])

    @property
    def is_grey(self) -> bool:
        """Whether values are in [0, 1] but not all 0 or 1."""
        inside, binary = is_grey(self.train)
        return inside and not binary and is_grey(self.valid)[0] and is_grey(self.test)[0]

    @property
    def is_colour(self) -> bool:
        """Whether a datum has the shape of an image with colour channels first."""
        return len(self.data_shape) == 3 and self.data_shape[0] in (3, 4)

    @property
    def holds_levels(self) -> bool:
        """Whether values are grey levels. Bits per dimension of a density then mean nothing:
        dequantise first.
        """
        return self.levels is not None and not self.dequantized

    @property
    def data_scale(self) -> float:
        """What bits per dimension of a density need: the width of a level once
        dequantised, else 1.
        """
        return 1 / self.levels if self.levels is not None and self.dequantized else 1.0

    @property
    def condition_dim(self) -> int:
        """Size of the labels as a condition: one more than the largest label, or the number of
        covariates.

        Raises:
            ValueError: If there are no labels.
        """
        labels = [self.labelled(part)[1] for part in PARTS]
        return labels[0].shape[1] if labels[0].dim() > 1 else 1 + max(int(y.max()) for y in labels)

    def labelled(self, part: str) -> tuple[Any, Tensor]:
        """Data and labels of a part, ``(x, y)``, as a conditional model takes them.

        Raises:
            ValueError: If there are no labels, or they are neither classes counted from 0 nor
                finite covariates.
        """
        if self.labels is None:
            raise ValueError(
                f"{self.name} has no labels for each of its parts. A file gives them as an array "
                "'labels' beside its data, or as 'train_labels', 'test_labels' beside 'train', "
                "'test'."
            )
        y = self.labels[PARTS.index(part)]
        check_labels(y, f"the {part} part of {self.name}")
        return getattr(self, part), y

    def binarize(self, how: str = "dynamic", *, seed: int = 0) -> "Splits":
        """Black and white versions of the three parts.

        Args:
            how: ``"threshold"`` or ``"stochastic"`` (static): as :func:`binarize`, each part once;
                ``"dynamic"``: validation and test once as by ``"stochastic"``, training anew for
                each batch through :attr:`transform`.
            seed: Of the draws. The bits of each part depend on this and on that part alone.

        Raises:
            ValueError: If values leave [0, 1], or ``how`` is another word.
        """
        if how not in ("threshold", "stochastic", "dynamic"):
            raise ValueError(f"how must be 'threshold', 'stochastic' or 'dynamic', found {how!r}.")
        once = "threshold" if how == "threshold" else "stochastic"
        parts = {
            part: binarize(getattr(self, part), once, seed=seed + i) for i, part in enumerate(PARTS)
        }
        changed: dict[str, Any] = {**parts, "levels": None, "dequantized": False}
        if how == "dynamic":
            changed |= {"train": self.train, "transform": resample}
        return replace(self, **changed)

    def dequantize(self, *, seed: int = 0) -> "Splits":
        """Real numbers in place of grey levels, for a likelihood that is a density.

        Validation and test data get their noise once, training data anew for each batch through
        :attr:`transform`. See :func:`dequantize` for the bound that the log-density then is.

        Args:
            seed: Of the noise. The noise of each part depends on this and on that part alone.

        Raises:
            ValueError: If the values are no grey levels.

        >>> import pyrovae as pv
        >>> digits = pv.data.load("digits").dequantize()
        >>> digits.holds_levels, digits.data_scale == 1 / 17
        (False, True)
        """
        if self.levels is None or self.dequantized:
            raise ValueError(
                f"{self.name} does not hold grey levels, so there is nothing to dequantise. "
                "Binarised data and data that were real numbers from the start stay as they are."
            )
        valid, test = (
            dequantize(x, self.levels, seed=seed + i) for i, x in ((1, self.valid), (2, self.test))
        )
        noise = Dequantize(self.levels)
        return replace(self, valid=valid, test=test, transform=noise, dequantized=True)

    def take(self, limit: int, *, seed: int = 0) -> "Splits":
        """At most ``limit`` data of each part, chosen at random: files are
        often sorted by class.
        """
        if limit < 1:
            raise ValueError(f"limit must be at least 1, found {limit}.")
        chosen = {
            part: _shuffled(len(getattr(self, part)), seed)[:limit].sort().values for part in PARTS
        }
        parts = {part: _chosen(getattr(self, part), index) for part, index in chosen.items()}
        labels = self.labels and tuple(
            y[index] for y, index in zip(self.labels, chosen.values(), strict=True)
        )
        return replace(self, **parts, labels=labels)


def split(
    x: Any,
    y: Any = None,
    *,
    test: Any = None,
    test_labels: Any = None,
    valid_size: float | int | None = None,
    test_size: float | int | None = None,
    seed: int = 0,
    name: str = "data",
    levels: int | None = None,
    classes: tuple[str, ...] = (),
    missing: bool = False,
    columns: tuple[str, ...] = (),
) -> Splits:
    """Cut data into training, validation and test parts, at random with a fixed seed.

    Args:
        x: All data, or all but the test data, ``(N, *data_shape)``: an array, a frame, a sparse
            matrix, an AnnData object, a memory map, ... Large ones that are not yet in memory as an
            array are not read here; see :class:`~pyrovae.data.rows.Rows`.
        y: Labels ``(N,)``, or covariates ``(N, C)``.
        test, test_labels: A test part given beforehand; then only a validation part is cut from
            ``x``.
        valid_size: Share (a float in (0, 1)) or number (an integer) of data for validation; by
            default one in six of what is not test data, as in MNIST's usual 50,000 and 10,000.
        test_size: Likewise, by default one in six.
        seed: Of the shuffle.
        name, levels, classes, missing, columns: As in :class:`Splits`.

    Raises:
        ValueError: If a size leaves a part empty.

    >>> split(torch.randn(100, 3), valid_size=10, test_size=0.2)
    Splits(data: train 70, valid 10, test 20; each (3,))
    """
    x = _floating(x, name, missing)
    test = None if test is None else _floating(test, name, missing)
    labels = None if y is None else as_tensor(y, "The labels")
    if labels is not None and labels.shape[0] != x.shape[0]:
        raise ValueError(f"{name} has {x.shape[0]} data but {labels.shape[0]} labels.")
    order = _shuffled(x.shape[0], seed)
    if test is None:
        size = _size(test_size, x.shape[0], "test_size")
        held, order = order[:size], order[size:]
        test, test_labels = _chosen(x, held), None if labels is None else labels[held]
    size = _size(valid_size, order.shape[0], "valid_size")
    # Parts keep the order of the file, so that they do not depend on how the shuffle was cut.
    valid_index, train_index = order[:size].sort().values, order[size:].sort().values
    parts = None
    if labels is not None and test_labels is not None:
        parts = labels[train_index], labels[valid_index], as_tensor(test_labels, "The test labels")
    train, valid = _chosen(x, train_index), _chosen(x, valid_index)
    about = {"classes": classes, "missing": missing, "columns": columns}
    return Splits(train, valid, test, name, levels, parts, **about)


def _floating(x: Any, name: str, missing: bool) -> Tensor | Rows:
    (found,) = as_arguments((x,), name=name, missing=missing)
    return check(found, name, missing=missing)


def _chosen(x: Tensor | Rows, index: Tensor) -> Tensor | Rows:
    return x.take(index) if isinstance(x, Rows) else x[index]


def _shuffled(size: int, seed: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))


def _size(wanted: float | int | None, total: int, label: str) -> int:
    if wanted is None:
        size = max(round(total / 6), 1)
    elif isinstance(wanted, float):
        if not 0 < wanted < 1:
            raise ValueError(
                f"{label} as a share must lie in (0, 1), found {wanted}. Give an integer for a "
                "number."
            )
        size = max(round(wanted * total), 1)
    else:
        size = wanted
    if not 1 <= size < total:
        raise ValueError(f"{label}={size} of {total} data leaves a part empty. Give more data.")
    return size
