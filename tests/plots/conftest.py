"""Figures are closed after each test."""

import pytest


@pytest.fixture(autouse=True)
def _closed():
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    yield
    plt.close("all")
