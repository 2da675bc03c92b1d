"""Data: what is read is what was written, and bad files say what is wrong."""

import numpy as np
import pytest
import torch
from PIL import Image

from pyrovae import data


def as_set(x):
    return {row.numpy().tobytes() for row in x}


@pytest.mark.parametrize("kind", ["npy", "npz", "pt", "pt-dict"])
def test_array_files_come_back_as_written(tmp_path, kind):
    x = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    path = tmp_path / f"mine.{kind[:3].rstrip('-')}"
    if kind == "npy":
        np.save(path, x)
    elif kind == "npz":
        np.savez_compressed(path, anything=x)
    else:
        torch.save({"data": torch.tensor(x)} if kind == "pt-dict" else torch.tensor(x), path)
    splits = data.load(path)
    assert as_set(splits.train) | as_set(splits.valid) | as_set(splits.test) == as_set(
        torch.tensor(x)
    )
    assert (splits.name, splits.levels, splits.data_shape) == ("mine", None, (5,))


def test_given_parts_are_kept_in_order(tmp_path):
    parts = {
        k: np.random.default_rng(i).random((4 + i, 3))
        for i, k in enumerate(("train", "valid", "test"))
    }
    np.savez(tmp_path / "a.npz", **parts)
    splits = data.load(tmp_path / "a.npz")
    for part, expected in parts.items():
        assert torch.equal(getattr(splits, part), torch.tensor(expected)), part
    assert splits.train.dtype == torch.float64


def test_packed_bits(tmp_path):
    bits = np.random.default_rng(0).random((9, 5, 5)) < 0.5
    packed = {
        f"{k}_bits": np.packbits(bits.reshape(9, -1), axis=1) for k in ("train", "valid", "test")
    }
    np.savez(tmp_path / "bits.npz", **packed, image_shape=np.array([5, 5]))
    splits = data.load(tmp_path / "bits.npz")
    assert torch.equal(splits.train, torch.tensor(bits).float())
    assert (splits.is_grey, splits.levels) == (False, None)
    np.savez(tmp_path / "bad.npz", **packed, image_shape=np.array([9, 9]))
    with pytest.raises(ValueError, match=r"packed uint8 of shape \(N, 11\)"):
        data.load(tmp_path / "bad.npz")


def test_sparse_counts_stay_counts(tmp_path):
    from scipy.sparse import csr_matrix, save_npz

    counts = np.random.default_rng(0).poisson(0.3, (12, 40)).astype(np.uint16)
    save_npz(tmp_path / "counts.npz", csr_matrix(counts))
    splits = data.load(tmp_path / "counts.npz")
    rows = torch.cat([splits.train, splits.valid, splits.test])
    assert sorted(map(tuple, rows.long().tolist())) == sorted(map(tuple, counts.tolist()))
    assert splits.levels is None
    save_npz(tmp_path / "columns.npz", csr_matrix(counts).tocsc())
    with pytest.raises(ValueError, match="csr"):
        data.load(tmp_path / "columns.npz")


def test_bytes_are_grey_levels_only_in_images(tmp_path):
    levels = np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4)
    np.save(tmp_path / "images.npy", levels)
    np.save(tmp_path / "counts.npy", levels.reshape(6, 16))
    np.save(tmp_path / "bits.npy", levels % 2)
    assert data.load(tmp_path / "images.npy").train.max() < 1
    assert data.load(tmp_path / "counts.npy").train.max() > 1
    assert set(data.load(tmp_path / "bits.npy").train.unique().tolist()) == {0.0, 1.0}


def test_colour_goes_first(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 7, 3), dtype=np.uint8)
    np.savez(tmp_path / "rgb.npz", train=images, valid=images, test=images)
    assert torch.equal(
        data.load(tmp_path / "rgb.npz").test, torch.tensor(images).movedim(-1, 1).float() / 255
    )


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_image_folder(tmp_path, mode):
    pixels = np.random.default_rng(0).integers(
        0, 256, (9, 6, 6) if mode == "L" else (9, 6, 6, 3), dtype=np.uint8
    )
    for part, rows in (("train", pixels[:6]), ("test", pixels[6:])):
        for i, array in enumerate(rows):
            (tmp_path / part / str(i % 2)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / part / str(i % 2) / f"{i}.png")
    splits = data.load(tmp_path)
    expected = torch.tensor(pixels if mode == "L" else np.moveaxis(pixels, -1, 1)).float() / 255
    assert as_set(splits.test) == as_set(expected[6:])
    assert as_set(splits.train) | as_set(splits.valid) == as_set(expected[:6])
    assert data.load(tmp_path, size=3).data_shape == ((3, 3) if mode == "L" else (3, 3, 3))


def test_images_of_two_sizes(tmp_path):
    for i, edge in enumerate((6, 6, 8)):
        Image.new("L", (edge, edge)).save(tmp_path / f"{i}.png")
    with pytest.raises(ValueError, match=r"0\.png is 6 x 6, 2\.png is 8 x 8.*size="):
        data.load(tmp_path)
    assert data.load(tmp_path, size=2).data_shape == (2, 2)


def write_bad(kind, path):
    x = np.zeros((20, 3), dtype=np.float32)
    if kind == "truncated":
        np.savez(path, x)
        path.write_bytes(path.read_bytes()[:100])
    elif kind == "text":
        path.write_text("1, 2, 3")
    elif kind == "nan":
        x[4, 1] = np.nan
        np.savez(path, x)
    elif kind == "inf":
        x[7, 1] = np.inf
        np.savez(path, x)
    elif kind == "empty":
        np.savez(path, x[:0])
    elif kind == "objects":
        np.savez(path, np.array([{}, []], dtype=object))
    elif kind == "strings":
        np.savez(path, np.array(["a", "b"]))
    elif kind == "two arrays":
        np.savez(path, left=x, right=x)
    elif kind == "complex":
        np.savez(path, x.astype(np.complex64))
    elif kind == "no test":
        np.savez(path, train=x, valid=x)
    elif kind == "no train":
        np.savez(path, test=x)
    elif kind == "shapes":
        np.savez(path, train=x, valid=x, test=x[:, :2])


BAD = {
    "truncated": "damaged",
    "text": "damaged",
    "nan": "NaN or infinite values, in 1 of .*first at index 4",
    "inf": "NaN or infinite values, in 1 of .*first at index 7",
    "empty": r"No data in .*\(0, 3\)",
    "objects": "plain arrays",
    "strings": "Expected one array",
    "two arrays": "Expected one array.*left.*right",
    "complex": "Expected numbers",
    "no test": "no test array",
    "no train": "no train array",
    "shapes": "one shape a datum",
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files(tmp_path, kind):
    path = tmp_path / "bad.npz"
    write_bad(kind, path)
    with pytest.raises(ValueError, match=BAD[kind]):
        data.load(path)


def test_texts_in_an_array_file_are_told_as_such(tmp_path):
    np.save(tmp_path / "x.npy", np.array([["1.5", "2"]] * 9))
    np.savez(tmp_path / "x.npz", ages=np.arange(9), names=np.array(["a"] * 9))
    for file, found in (
        ("x.npy", "found x, which holds texts"),
        ("x.npz", r"found ages \(9,\), names, which holds texts"),
    ):
        with pytest.raises(ValueError, match=found + r"\. Convert texts .* \.astype\(float\)"):
            data.load(tmp_path / file)


def test_a_pickle_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save(Trap(), tmp_path / "trap.pt")
    with pytest.raises(ValueError, match="plain arrays"):
        data.load(tmp_path / "trap.pt")
    assert not (tmp_path / "ran").exists()


def test_unknown_names(tmp_path):
    with pytest.raises(
        ValueError, match=r"Unknown data set 'fashon-mnist'.*Did you mean 'fashion-mnist'"
    ):
        data.load("fashon-mnist")
    with pytest.raises(FileNotFoundError, match="No data file"):
        data.load(tmp_path / "nothing.npy")
    (tmp_path / "a.docx").write_text("1,2")
    with pytest.raises(ValueError, match=r"expected an \.npy, \.npz, \.pt, \.csv, .* file"):
        data.load(tmp_path / "a.docx")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="No images"):
        data.load(tmp_path / "folder")


def test_debian_fashion_mnist(debian_fashion_mnist):
    splits = data.load("fashion-mnist", root=debian_fashion_mnist)
    assert [p.shape[0] for p in (splits.train, splits.valid, splits.test)] == [
        50_000,
        10_000,
        10_000,
    ]
    assert splits.labels[2].bincount().tolist() == [1000] * 10
    # Mean grey level of the training images, as published with the data set: 0.2860.
    assert torch.cat([splits.train, splits.valid]).mean().item() == pytest.approx(0.2860, abs=5e-5)


def test_real_mnist(real_path):
    splits = data.load("mnist", root=real_path("mnist.npz").parent)
    assert [p.shape[0] for p in (splits.train, splits.valid, splits.test)] == [
        50_000,
        10_000,
        10_000,
    ]
    assert torch.cat([splits.train, splits.valid]).mean().item() == pytest.approx(
        0.1307, abs=5e-5
    )  # as published


def test_real_static_mnist(real_path):
    splits = data.load(real_path("mnist_static_binarized.npz"))
    assert [p.shape[0] for p in (splits.train, splits.valid, splits.test)] == [
        50_000,
        10_000,
        10_000,
    ]
    assert set(splits.test.unique().tolist()) == {0.0, 1.0}
    assert splits.data_shape == (28, 28)


def test_real_colour_images(real_path):
    splits = data.load(real_path("cifar10_subset.npz"))
    assert splits.data_shape == (3, 32, 32)
    assert splits.test.shape[0] == 1000


def test_real_counts(real_path):
    splits = data.load(real_path("scrna_mouse_bladder.npz"))
    totals = torch.cat([splits.train, splits.valid, splits.test]).sum(1)
    assert (totals.min().item(), totals.max().item()) == (425, 13_483)
    assert splits.labels is not None


def test_a_size_that_shrinks_nothing_is_refused(tmp_path):
    assert data.load("digits", size=8).data_shape == (8, 8)
    np.save(tmp_path / "a.npy", np.zeros((9, 6, 6), np.float32))
    for name in ("digits", tmp_path / "a.npy"):
        with pytest.raises(ValueError, match=r"size=4 does not go with .*Leave it out"):
            data.load(name, size=4)


@pytest.mark.parametrize("names", [("x", "labels", "y"), ("train", "x_train")])
def test_two_arrays_of_one_meaning_are_refused(tmp_path, names):
    np.savez(tmp_path / "a.npz", **{name: np.ones((9, 2), int) for name in names})
    with pytest.raises(ValueError, match=rf"two arrays for .*{names[-1]!r}\. Leave one out"):
        data.load(tmp_path / "a.npz")
