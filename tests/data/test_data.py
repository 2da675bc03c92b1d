"""Data: what is read is what was written, parts are fixed by the seed, and bad files say what is wrong."""

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


def as_set(x):
    return {row.numpy().tobytes() for row in x}


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    splits = data.load("digits")
    together = torch.cat([splits.train, splits.valid, splits.test])
    expected = torch.tensor(load_digits().images / 16, dtype=torch.float32)
    assert sorted(map(bytes, together.numpy())) == sorted(map(bytes, expected.numpy()))
    assert (splits.levels, splits.data_shape, splits.is_grey) == (17, (8, 8), True)
    assert [p.shape[0] for p in (splits.train, splits.valid, splits.test)] == [1247, 250, 300]


def test_labels_go_with_their_data():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    label_of = {
        x.astype(np.float32).tobytes(): y
        for x, y in zip(bunch.images / 16, bunch.target, strict=True)
    }
    splits = data.load("digits", seed=3)
    for part, labels in zip((splits.train, splits.valid, splits.test), splits.labels, strict=True):
        assert [label_of[x.numpy().tobytes()] for x in part] == labels.tolist()


def test_labels_as_conditions(tmp_path):
    digits = data.load("digits").take(50)
    x, y = digits.labelled("valid")
    assert x is digits.valid
    assert y is digits.labels[1]
    assert data.load("digits").condition_dim == 10
    rng = np.random.default_rng(0)
    x, ages = rng.normal(size=(60, 4)).astype(np.float32), rng.uniform(20, 60, size=60)
    for covariates, size in ((ages, 1), (np.stack([ages, ages**2, ages], 1), 3)):
        np.savez(tmp_path / "people.npz", x=x, labels=covariates)
        people = data.load(tmp_path / "people.npz")
        assert people.condition_dim == size
        row_of = {row.tobytes(): np.float32(c) for row, c in zip(x, covariates, strict=True)}
        for part in ("train", "valid", "test"):
            for row, c in zip(*people.labelled(part), strict=True):
                np.testing.assert_array_equal(
                    c.numpy(), np.atleast_1d(row_of[row.numpy().tobytes()])
                )


def test_labels_that_are_no_conditions_stop_only_who_asks(tmp_path):
    x = np.ones((12, 4), np.float32)
    for labels, message in (
        (None, "x has no labels for each of its parts.*'train_labels'"),
        (np.arange(12) - 1, r"counted from 0, found -1 in the test part of x"),
        (np.where(np.arange(12) < 11, np.arange(12) / 2, np.nan), "NaN or infinite covariates"),
    ):
        arrays = {} if labels is None else {"labels": labels}
        np.savez(tmp_path / "x.npz", x=x, **arrays)
        splits = data.load(tmp_path / "x.npz")
        with pytest.raises(ValueError, match=message):
            [splits.labelled(part) for part in ("train", "valid", "test")]
    parts = torch.ones(3, 2), torch.ones(2, 2), torch.ones(2, 2)
    with pytest.raises(
        ValueError, match=r"The valid part of data has 2 data but labels of shape \(3,\)"
    ):
        data.Splits(*parts, labels=(torch.arange(3), torch.arange(3), torch.arange(2)))
    with pytest.raises(
        ValueError, match=r"floating covariates of shape \(N, C\), found torch.float32 \(3,\)"
    ):
        data.Splits(*parts, labels=(torch.ones(3), torch.ones(2), torch.ones(2))).labelled("train")


def test_binarising_anew_leaves_labels_alone():
    grey, y = torch.full((50, 4), 0.5), torch.arange(50)
    drawn, same = data.resample(grey, y)
    assert same is y
    assert set(drawn.flatten().tolist()) == {0.0, 1.0}


def test_parts_depend_on_the_seed_alone():
    torch.manual_seed(5)
    first = data.load("digits", seed=1)
    torch.manual_seed(6)
    again, other = data.load("digits", seed=1), data.load("digits", seed=2)
    assert torch.equal(first.test, again.test)
    assert torch.equal(first.train, again.train)
    assert not torch.equal(first.test, other.test)


def test_split_cuts_without_overlap():
    x = torch.arange(100.0).unsqueeze(1)
    splits = data.split(x, valid_size=0.25, test_size=20)
    assert [p.shape[0] for p in (splits.train, splits.valid, splits.test)] == [60, 20, 20]
    assert (
        sorted(torch.cat([splits.train, splits.valid, splits.test]).squeeze(1).tolist())
        == x.squeeze(1).tolist()
    )


@pytest.mark.parametrize("size", [0, 100, 150, -1, 0.0, 1.0, 1.5])
def test_split_refuses_an_empty_part(size):
    with pytest.raises(ValueError, match="test_size"):
        data.split(torch.zeros(100, 2), test_size=size)


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
    "nan": "1 NaN or infinite values.*datum 4",
    "inf": "1 NaN or infinite values.*datum 7",
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
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(ValueError, match=r"expected an \.npy, \.npz or \.pt file"):
        data.load(tmp_path / "a.csv")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="No images"):
        data.load(tmp_path / "folder")


def test_threshold():
    x = torch.tensor([[0.0, 0.49, 0.5, 1.0]])
    assert data.binarize(x).tolist() == [[0, 0, 1, 1]]
    assert data.binarize(x, threshold=0.3).tolist() == [[0, 1, 1, 1]]


def test_stochastic_binarisation_has_the_grey_values_as_means():
    grey = torch.linspace(0, 1, 11, dtype=torch.float64)
    bits = data.binarize(grey.expand(40_000, -1), "stochastic", seed=0)
    assert set(bits.unique().tolist()) == {0.0, 1.0}
    # Five standard errors of a mean of 40,000 draws.
    assert ((bits.mean(0) - grey).abs() <= 5 * (grey * (1 - grey) / 40_000).sqrt()).all()


def test_binarised_test_data_are_the_same_at_every_evaluation():
    # Trap: a test set binarised anew at each evaluation.
    torch.manual_seed(0)
    first = data.load("digits").binarize("dynamic")
    torch.manual_seed(1)
    torch.rand(3)
    again = data.load("digits").binarize("dynamic")
    assert torch.equal(first.test, again.test)
    assert torch.equal(first.valid, again.valid)
    assert first.transform is not None
    assert torch.equal(
        first.train, data.load("digits").train
    )  # still grey: drawn anew for each batch
    static = data.load("digits").binarize("stochastic")
    assert torch.equal(static.test, first.test)
    assert static.transform is None
    assert not torch.equal(static.test, data.load("digits").binarize("stochastic", seed=1).test)


def test_binarising_does_not_touch_the_global_generator():
    state = torch.get_rng_state()
    data.load("digits").binarize("dynamic").take(10)
    assert torch.equal(torch.get_rng_state(), state)


def test_dynamic_binarisation_follows_the_global_seed():
    grey = data.load("digits").train
    torch.manual_seed(0)
    first, second = data.resample(grey), data.resample(grey)
    torch.manual_seed(0)
    assert torch.equal(data.resample(grey), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("bad", [[[-0.1]], [[1.5]], [[float("nan")]]])
@pytest.mark.parametrize("how", ["threshold", "stochastic"])
def test_binarisation_refuses_what_is_no_probability(how, bad):
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        data.binarize(torch.tensor(bad), how)


def test_binarisation_refuses_integers_and_other_words():
    with pytest.raises(ValueError, match="Divide"):
        data.binarize(torch.tensor([[3]]))
    with pytest.raises(ValueError, match="'otsu'"):
        data.binarize(torch.zeros(1, 1), "otsu")
    with pytest.raises(ValueError, match="'otsu'"):
        data.load("digits").binarize("otsu")


def test_take_is_a_subset_of_all_classes(tmp_path):
    x = np.repeat(np.arange(10.0), 50).reshape(-1, 1)  # sorted by class
    np.savez(tmp_path / "sorted.npz", train=x, valid=x, test=x)
    full = data.load(tmp_path / "sorted.npz")
    few = full.take(60)
    assert few.test.shape[0] == 60
    assert len(few.test.unique()) == 10
    assert torch.equal(few.test, full.take(60).test)
    with pytest.raises(ValueError, match="limit"):
        full.take(0)


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
