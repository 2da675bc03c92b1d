"""Data sets as tensors: named ones, array files and image folders; splits; binarisation."""

from pyrovae.data.binary import binarize, resample
from pyrovae.data.sources import NAMES, load
from pyrovae.data.splits import Splits, split

__all__ = ["NAMES", "Splits", "binarize", "load", "resample", "split"]
