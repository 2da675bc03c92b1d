"""Runs: a configuration, a folder with its results, figures and a page."""

from pyrovae.runs.building import declare, load_data
from pyrovae.runs.config import Config
from pyrovae.runs.pipeline import evaluate, resume, train
from pyrovae.runs.run import Run, load_run
from pyrovae.runs.sweeps import Sweep, sweep

__all__ = [
    "Config",
    "Run",
    "Sweep",
    "declare",
    "evaluate",
    "load_data",
    "load_run",
    "resume",
    "sweep",
    "train",
]
