"""Runs whose reports take little time; tests/runs/test_report.py has whole ones."""

import pytest
from helpers.runs import plain_report

from pyrovae.runs import pipeline


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    """With the pictures alone that are files."""
    plain_report(monkeypatch)


@pytest.fixture
def quick(monkeypatch):
    """Without any report."""
    monkeypatch.setattr(pipeline, "report", lambda *_: None)
