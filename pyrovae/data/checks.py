"""Checks of the parts of a data set."""

from torch import Tensor

from pyrovae.data.arrays import check_finite
from pyrovae.data.rows import Rows

__all__ = ["check", "check_labels", "is_grey"]


def check(x: Tensor | Rows, what: str, *, missing: bool = False) -> Tensor | Rows:
    """``x``, if it is a non-empty, finite, floating-point tensor of data; with ``missing``, NaN is
    a missing cell.

    Values of rows are checked later, when they are read.

    Raises:
        ValueError: If not.
    """
    if x.dim() < 2:
        raise ValueError(
            f"Data must have shape (N, *data_shape), found {tuple(x.shape)} in {what}."
        )
    if x.numel() == 0:
        raise ValueError(f"No data in {what}: found shape {tuple(x.shape)}.")
    if not x.is_floating_point():
        raise ValueError(f"Data must be floating point, found {x.dtype} in {what}. Use x.float().")
    if isinstance(x, Rows):
        return x
    check_finite(x, f"Data in {what} hold", missing=missing)
    return x


def check_labels(y: Tensor, what: str) -> None:
    if y.dim() not in (1, 2) or y.is_floating_point() != (y.dim() == 2):
        raise ValueError(
            "Labels must be integers of shape (N,) or floating covariates of shape (N, C), found "
            f"{y.dtype} {tuple(y.shape)} in {what}."
        )
    check_finite(y, f"Covariates in {what} hold")
    if not y.is_floating_point() and int(y.min()) < 0:
        raise ValueError(f"Labels are counted from 0, found {int(y.min())} in {what}.")


def is_grey(x: Tensor | Rows) -> tuple[bool, bool]:
    """Whether all values are in [0, 1], and whether all are 0 or 1."""
    inside = binary = True
    for _, piece in x.pieces() if isinstance(x, Rows) else [(None, x)]:
        inside = inside and bool(((piece >= 0) & (piece <= 1)).all())
        binary = binary and bool(((piece == 0) | (piece == 1)).all())
        if not inside:
            break
    return inside, inside and binary
