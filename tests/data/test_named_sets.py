"""Data sets by name, from the files that torchvision or the user keeps."""

import gzip
import hashlib
import struct
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from pyrovae import data

FAMILY = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}


def as_set(x):
    return {row.numpy().tobytes() for row in x}


def write_idx(path, array, *, packed=False):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    with (gzip.open if packed else open)(path, "wb") as file:
        file.write(header + array.tobytes())


def write_family(folder, *, packed=False, sizes=(24, 6), prefixes=("train-", "t10k-")):
    """Small idx files of random images; returns the images and labels written."""
    folder.mkdir(parents=True, exist_ok=True)
    random, written, end = np.random.default_rng(0), [], ".gz" if packed else ""
    for prefix, size in zip(prefixes, sizes, strict=True):
        images = random.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        labels = random.integers(0, 10, size, dtype=np.uint8)
        write_idx(folder / f"{prefix}images-idx3-ubyte{end}", images, packed=packed)
        write_idx(folder / f"{prefix}labels-idx1-ubyte{end}", labels, packed=packed)
        written.append((images, labels))
    return written


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    splits = data.load("digits")
    together = torch.cat([splits.train, splits.valid, splits.test])
    expected = torch.tensor(load_digits().images / 16, dtype=torch.float32)
    assert sorted(map(bytes, together.numpy())) == sorted(map(bytes, expected.numpy()))
    assert (splits.levels, splits.data_shape, splits.is_grey) == (17, (8, 8), True)
    assert [p.shape[0] for p in (splits.train, splits.valid, splits.test)] == [1247, 250, 300]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize("flat", [False, True], ids=["torchvision's folders", "flat"])
@pytest.mark.parametrize("name", FAMILY)
def test_mnist_family_from_idx_files(tmp_path, name, flat, packed):
    (train, _), (test, test_labels) = write_family(
        tmp_path if flat else tmp_path / FAMILY[name] / "raw", packed=packed
    )
    before = sorted(p.name for p in tmp_path.rglob("*"))
    splits = data.load(name, root=tmp_path)
    assert torch.equal(splits.test, torch.from_numpy(test).float() / 255)
    assert splits.labels[2].tolist() == test_labels.tolist()
    assert as_set(splits.train) | as_set(splits.valid) == as_set(
        torch.from_numpy(train).float() / 255
    )
    assert (splits.train.shape[0], splits.valid.shape[0], splits.levels) == (20, 4, 256)
    assert (
        sorted(p.name for p in tmp_path.rglob("*")) == before
    )  # nothing is left in the user's folder


def test_emnist_is_upright(tmp_path):
    prefixes = ("emnist-letters-train-", "emnist-letters-test-")
    _, (test, _) = write_family(tmp_path / "EMNIST" / "raw", prefixes=prefixes)
    assert torch.equal(
        data.load("emnist-letters", root=tmp_path).test, torch.from_numpy(test).mT.float() / 255
    )


def test_omniglot_is_ink_by_area(tmp_path, monkeypatch):
    from torchvision.datasets import Omniglot

    sums, drawings = {}, {}
    for part, count in (("images_background", 6), ("images_evaluation", 7)):
        ink = np.random.default_rng(count).random((count, 84, 84)) < 0.3
        for i, drawing in enumerate(ink):
            file = tmp_path / "omniglot-py" / part / "Latin" / "character01" / f"{i:04}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.where(drawing, 0, 255).astype(np.uint8)).convert("1").save(file)
        archive = tmp_path / "omniglot-py" / f"{part}.zip"
        with zipfile.ZipFile(archive, "w"):
            pass
        sums[part], drawings[part] = hashlib.md5(archive.read_bytes()).hexdigest(), ink
    monkeypatch.setattr(Omniglot, "zips_md5", sums)  # torchvision checks the archives it came from
    splits = data.load("omniglot", root=tmp_path)
    areas = drawings["images_evaluation"].reshape(7, 28, 3, 28, 3).mean((2, 4))
    # Levels are rounded to 1/255.
    torch.testing.assert_close(
        splits.test, torch.tensor(areas, dtype=torch.float32), atol=0.51 / 255, rtol=0
    )
    assert splits.train.shape[0] + splits.valid.shape[0] == 6


@pytest.mark.parametrize("name", ["mnist", "emnist-digits", "omniglot"])
def test_missing_set_says_how_to_get_it(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=r"root=.*download=True"):
        data.load(name, root=tmp_path)


@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
def test_damaged_idx_file(tmp_path, file, packed):
    write_family(tmp_path, packed=packed)
    path = tmp_path / (file + (".gz" if packed else ""))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="damaged"):
        data.load("mnist", root=tmp_path)


def test_named_set_from_an_archive_in_the_root(tmp_path):
    train = np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)
    np.savez(
        tmp_path / "mnist.npz",
        x_train=train,
        x_test=train[:3],
        y_train=np.arange(12),
        y_test=np.arange(3),
    )
    splits = data.load("mnist", root=tmp_path)
    assert torch.equal(splits.test, torch.from_numpy(train[:3]).float() / 255)
    assert splits.labels[2].tolist() == [0, 1, 2]
    assert splits.name == "mnist"
