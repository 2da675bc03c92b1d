"""Options and real data shared by all tests."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

pytest.register_assert_rewrite("helpers")  # so that their failures show values, as in test files

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # workers share the cores; must be said before torch loads

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        help="torch device for tests that take the `device` fixture; default cuda for tests of a "
        "GPU, cpu for the others",
    )
    parser.addoption(
        "--dtype", default="float64", help="torch dtype for tests that take the `dtype` fixture"
    )


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest):
    """The torch device of ``--device``, else the processor."""
    import torch

    return torch.device(request.config.getoption("--device") or "cpu")


@pytest.fixture(scope="session")
def dtype(request: pytest.FixtureRequest):
    """The torch dtype of ``--dtype``."""
    import torch

    return getattr(torch, request.config.getoption("--dtype"))


def data_folder() -> Path:
    """Where the optional real data lies: ``$PYROVAE_DATA``, else ``shared/data`` beside the
    repository.
    """
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("PYROVAE_DATA", default))


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Mapping[str, np.ndarray]]:
    """``real_data("mnist.npz")`` opens a file of :func:`data_folder`, or skips the test."""

    def load(name: str) -> Mapping[str, np.ndarray]:
        return np.load(real_file(name), allow_pickle=False)

    return load


@pytest.fixture(scope="session")
def real_path() -> Callable[[str], Path]:
    """``real_path("mnist.npz")`` is the path of that file, or skips the test
    where it is missing.
    """
    return real_file


def real_file(name: str) -> Path:
    path = data_folder() / name
    if not path.is_file():
        pytest.skip(f"no {name} in {path.parent}; set PYROVAE_DATA to the folder that holds it")
    return path


@pytest.fixture(scope="session")
def debian_fashion_mnist() -> Path:
    """The folder of Debian's package dataset-fashion-mnist (four gzipped idx files), or a skip."""
    if not (DEBIAN_FASHION_MNIST / "train-images-idx3-ubyte.gz").is_file():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    return DEBIAN_FASHION_MNIST
