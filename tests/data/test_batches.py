"""Input of every kind is used rightly or refused with what to do, in every batch."""

import warnings

import numpy as np
import pandas
import pytest
import scipy.sparse
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from pyrovae import data
from pyrovae.data.arguments import as_tensors
from pyrovae.data.batches import as_batches

X = np.arange(12, dtype=np.float32).reshape(4, 3)


def only(value):
    (tensor,) = as_tensors(value)
    return tensor


@pytest.mark.parametrize(
    "value",
    [
        X.astype(">f4"),
        X.astype(">u2"),
        X.astype(np.uint32),
        X.astype(np.uint64),
        X.astype(np.longdouble),
        X[::-1, ::-1][::-1, ::-1],
        np.asfortranarray(X),
        np.ma.masked_array(X, mask=False),
        pandas.DataFrame(X),
        scipy.sparse.csr_matrix(X),
        scipy.sparse.coo_array(X),
        torch.tensor(X).to_sparse(),
        torch.tensor(X).to_sparse_csr(),
        torch.quantize_per_tensor(torch.tensor(X), 1.0, 0, torch.quint8),
        torch.tensor(X).to(torch.uint16),
        torch.tensor(X).to(torch.uint64),
    ],
    ids=lambda value: f"{type(value).__name__}-{getattr(value, 'dtype', '')}",
)
def test_values_are_kept(value):
    found = only(value)
    assert torch.equal(found.double(), torch.tensor(X, dtype=torch.float64))
    assert (found + 1).sum() == X.sum() + 12  # torch computes in what it became


def test_reversed_and_read_only_arrays():
    fixed = X.copy()
    fixed.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(only(fixed), torch.tensor(X))
        assert torch.equal(only(X[::-1]), torch.tensor(X).flip(0))


def nested():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: np.ma.masked_array(X, mask=X > 9), ValueError,
         r"2 values .* masked.*\.filled.*observe_part"),
        (lambda: X.astype(complex), TypeError, "complex128.*real and the imaginary part"),
        (lambda: torch.tensor(X).cfloat(), TypeError, "complex64.*real and the imaginary part"),
        (lambda: np.array([[2**63]], dtype=np.uint64), ValueError,
         "do not fit.*9223372036854775808"),
        (lambda: torch.tensor([[-1]]).view(torch.uint64), ValueError, "do not fit"),
        (lambda: torch.empty(3, 2, device="meta"), TypeError, "meta tensor"),
        (nested, TypeError, "nested tensor.*to_padded_tensor"),
        (lambda: pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]}), TypeError, "numeric columns"),
        (lambda: pandas.DataFrame({"a": pandas.array([1, None], "Int64")}), (TypeError, ValueError),
         "missing|NaN"),
        (lambda: np.array(["2020-01-01"], dtype="datetime64[D]"), TypeError, "no numeric dtype"),
        (lambda: "digits", TypeError, "must be an array.*found str"),
    ],
)  # fmt: skip
def test_what_is_no_data_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        as_tensors(make())


def batches(source, **kwargs):
    make = {"device": torch.device("cpu"), "dtype": torch.float32, "programs": [lambda x: x]}
    return as_batches(source, 2, shuffle=False, name="train", **make, **kwargs)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_later_batch_of_a_loader_is_checked(value):
    x = torch.ones(6, 3)
    x[5, 1] = value
    it = iter(batches(DataLoader(TensorDataset(x), batch_size=2)))
    next(it), next(it)
    found = r"Batch 2 of the train data holds NaN or infinite values, in 1 of 2 data "
    found += r"\(first at index 1\)"
    with pytest.raises(ValueError, match=found):
        next(it)


def test_large_finite_numbers_of_a_loader_pass():
    x = torch.full((4, 3), 3e38)  # whose sum overflows
    assert len(list(batches(DataLoader(TensorDataset(x), batch_size=2)))) == 2


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_wide_images_keep_their_levels(tmp_path, suffix):
    levels = np.random.default_rng(0).integers(0, 2**16, (8, 4, 4), dtype=np.uint16)
    for i, image in enumerate(levels):
        Image.fromarray(image).save(tmp_path / f"{i}.{suffix}")
    splits = data.load(tmp_path)
    together = torch.cat([splits.train, splits.valid, splits.test])
    expected = torch.tensor(levels.astype(np.float32)) / 65535
    assert sorted(together.flatten().tolist()) == sorted(expected.flatten().tolist())
    assert splits.levels == 65536
    # Two by two pixels are averaged exactly, and rounded to a level.
    small = data.load(tmp_path, size=2)
    means = levels.reshape(8, 2, 2, 2, 2).mean((2, 4)) / 65535
    found = torch.cat([small.train, small.valid, small.test]).flatten().sort().values
    assert (found - torch.tensor(np.sort(means.flatten()))).abs().max() < 0.51 / 65535
    np.save(tmp_path / "wide.npy", levels)
    assert data.load(tmp_path / "wide.npy").levels == 65536


def test_images_without_a_range_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 1e6, dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"values from 1e\+06 to 1e\+06, which is no range"):
        data.load(tmp_path)
    Image.fromarray(np.full((4, 4), 10**6, dtype=np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"values from 1e\+06 to 1e\+06, which is no range"):
        data.load(tmp_path)
    Image.fromarray(np.full((4, 4), 1000, dtype=np.uint16)).save(tmp_path / "a.tif")
    Image.fromarray(np.full((4, 4), 100, dtype=np.uint8)).save(tmp_path / "b.tif")
    with pytest.raises(ValueError, match="one depth"):
        data.load(tmp_path)


@pytest.mark.parametrize("kind", ["complex", "nested"])
def test_tensor_files_that_hold_no_numbers(tmp_path, kind):
    torch.save(nested() if kind == "nested" else torch.ones(9, 3).cfloat(), tmp_path / "x.pt")
    with pytest.raises(ValueError, match=f"{kind}|plain arrays"):
        data.load(tmp_path / "x.pt")


def test_integers_beyond_64_bits_in_a_file(tmp_path):
    np.save(tmp_path / "x.npy", np.full((9, 3), 2**63, dtype=np.uint64))
    with pytest.raises(ValueError, match="do not fit"):
        data.load(tmp_path / "x.npy")
