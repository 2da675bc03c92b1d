"""Runs without what takes most of their time."""

import pytest

from pyrovae.runs import pipeline


@pytest.fixture
def quick(monkeypatch):
    """Without the figures of single runs, which take most of the time."""
    monkeypatch.setattr(pipeline, "report", lambda *_: None)
