"""Reports with the pictures alone that are files; tests/runs/test_report.py has whole ones."""

import pytest
from helpers.runs import plain_report


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    plain_report(monkeypatch)
