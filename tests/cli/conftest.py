"""One finished run for the tests of what comes after training."""

import pytest
from helpers.runs import TINY, call


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The folder of a tiny run on digits."""
    path = tmp_path_factory.mktemp("runs") / "digits"
    assert call("train", TINY, "--seed 5 --out", path) == 0
    return path
