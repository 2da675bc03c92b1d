"""Run folders: configuration, weights, evidence, figures and a page."""

from pyrovae.runs.run import load_run

__all__ = ["load_run"]
