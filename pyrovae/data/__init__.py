"""Data sets as tensors: named ones, array files and image folders, their parts, and what is done to
their values.
"""

from pyrovae.data.binary import binarize, resample
from pyrovae.data.dequantization import Dequantize, dequantize
from pyrovae.data.frames import as_given
from pyrovae.data.sources import NAMES, load
from pyrovae.data.splits import Splits, split

__all__ = [
    "NAMES",
    "Dequantize",
    "Splits",
    "as_given",
    "binarize",
    "dequantize",
    "load",
    "resample",
    "split",
]
