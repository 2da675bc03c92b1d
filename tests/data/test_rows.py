"""Data that stay in their files give what they give in memory, and are read some at a time."""

import numpy as np
import pytest
import scipy.sparse
import torch
from torch.testing import assert_close

import pyrovae as pv
from pyrovae.data import rows as rows_module
from pyrovae.data.arguments import as_arguments
from pyrovae.data.rows import FileRows, Rows, rows_of

X = np.random.default_rng(0).random((50, 4)).astype(np.float32)
NETS = {"encoder": pv.nets.MLP(4), "decoder": pv.nets.MLP(4)}
GAUSSIAN = pv.likelihoods.Gaussian(0.5)


@pytest.fixture
def on_disk(monkeypatch):
    """From here on no data are small enough to be read as a whole."""
    monkeypatch.setattr(rows_module, "IN_MEMORY", -1)


@pytest.fixture
def path(tmp_path):
    np.save(tmp_path / "x.npy", X)
    return tmp_path / "x.npy"


def sources(path):
    np.save(path.with_name("f.npy"), np.asfortranarray(X))
    np.save(path.with_name("b.npy"), X.astype(">f8"))
    private = np.load(path, mmap_mode="c")
    private[3] = 7.0
    changed = X.copy()
    changed[3] = 7.0
    return {
        "map": (np.load(path, mmap_mode="r"), X),
        "part of a map": (np.load(path, mmap_mode="r")[5:45:2], X[5:45:2]),
        "reversed map": (np.load(path, mmap_mode="r")[::-1, 1:3], X[::-1, 1:3]),
        "columns first": (np.load(path.with_name("f.npy"), mmap_mode="r"), X),
        "big-endian": (np.load(path.with_name("b.npy"), mmap_mode="r"), X.astype(float)),
        "private map": (private, changed),
        "csr": (scipy.sparse.csr_matrix(X), X),
        "csr array": (scipy.sparse.csr_array(X), X),
    }


def test_any_rows_in_any_order(path):
    generator = np.random.default_rng(1)
    for name, (source, expected) in sources(path).items():
        rows = rows_of(source, "The data")
        assert isinstance(rows, FileRows) == (name in ("map", "big-endian")), name
        size = len(expected)
        assert tuple(rows.shape) == expected.shape, name
        for index in (slice(3, 9), slice(None, None, -1), generator.integers(0, size, 30), 5,
                      np.arange(0), torch.tensor([2, 2, 1]), expected[:, 0] > 0.5):  # fmt: skip
            found = rows[index]
            places = index.numpy() if isinstance(index, torch.Tensor) else index
            assert found.dtype == rows.dtype, name
            np.testing.assert_array_equal(found.numpy(), expected[places], err_msg=name)
        taken = rows.take([4, 1, 1, 8]).take([3, 0])
        np.testing.assert_array_equal(taken[:].numpy(), expected[[8, 4]], err_msg=name)
        joined = torch.cat([piece for _, piece in rows.pieces()])
        np.testing.assert_array_equal(joined.numpy(), expected, err_msg=name)


def test_other_matrices_and_files_of_hdf5(tmp_path, on_disk):
    import h5py

    with h5py.File(tmp_path / "x.h5", "w") as file:
        stored = file.create_dataset("x", data=X)
        for source in (stored, scipy.sparse.coo_matrix(X), scipy.sparse.csc_array(X)):
            (rows,) = as_arguments(source)
            assert isinstance(rows, Rows)
            np.testing.assert_array_equal(rows[[3, 1, 3]].numpy(), X[[3, 1, 3]])


def test_a_file_that_is_cut_off(path):
    mapped = np.load(path, mmap_mode="r")
    with open(path, "r+b") as file:
        file.truncate(mapped.offset + 100)
    with pytest.raises(ValueError, match=r"x\.npy is damaged: 700 bytes are missing"):
        rows_of(mapped, "The data")


def test_small_ones_are_read_at_once(path):
    (found,) = as_arguments(np.load(path, mmap_mode="r"))
    assert isinstance(found, torch.Tensor)
    assert_close(found.numpy(), X)


def test_training_and_evidence_from_a_file_equal_those_from_memory(path, on_disk):
    def trained(x):
        torch.manual_seed(0)
        vae = pv.VAE(4, 2, likelihood=GAUSSIAN, **NETS)
        vae.initialize_from(x)
        history = vae.fit(x, valid=x, epochs=2, batch_size=16, capture=False, device="cpu")
        return [*vae.parameters()], history["valid_bound"], vae

    weights, bounds, vae = trained(X)
    for source in (np.load(path, mmap_mode="r"), scipy.sparse.csr_matrix(X)):
        assert isinstance(as_arguments(source)[0], Rows)
        again, same, _ = trained(source)
        # The mean of the data is summed in pieces, in double precision.
        assert_close(again, weights, rtol=1e-4, atol=1e-5)
        assert_close(same, bounds, rtol=1e-4, atol=1e-5)
        found, expected = (vae.log_marginal(x, num_particles=5, seed=3) for x in (source, X))
        np.testing.assert_array_equal(found.log_marginal, expected.log_marginal)
        assert found.dataset.attrs["data"] == expected.dataset.attrs["data"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_found_where_it_is_read(path, on_disk, value):
    x = X.copy()
    x[37, 2] = value
    np.save(path, x)
    vae = pv.VAE(4, 2, likelihood=GAUSSIAN, **NETS)
    with pytest.raises(ValueError, match=r"train data hold NaN or infinite.*first at index 37"):
        vae.fit(np.load(path, mmap_mode="r"), epochs=1, batch_size=8)
    with pytest.raises(ValueError, match=r"hold NaN or infinite values.*first at index 37"):
        vae.log_marginal(np.load(path, mmap_mode="r"), num_particles=2)


def test_data_outside_the_support_are_found_in_later_batches(path, on_disk):
    x = (X > 0.5).astype(np.float32)
    x[40] = 0.5
    np.save(path, x)
    vae = pv.VAE(4, 2, **NETS)
    with pytest.raises(ValueError, match=r"Batch 5 of the train data: Bernoulli"):
        vae.fit(np.load(path, mmap_mode="r"), epochs=1, batch_size=8, shuffle=False)


def test_parts_of_a_file_stay_in_it(path, on_disk):
    splits = pv.data.load(path)
    assert all(isinstance(getattr(splits, part), Rows) for part in ("train", "valid", "test"))
    x = torch.cat([splits.train[:], splits.valid[:], splits.test[:]])
    assert {tuple(row) for row in x.tolist()} == {tuple(row) for row in X.tolist()}
    assert splits.is_grey
    assert len(splits.take(3).train) == 3
    bits = splits.binarize("threshold")
    assert not bits.is_grey
    assert_close(bits.valid[:], pv.data.binarize(splits.valid[:]))


def test_noise_of_a_datum_does_not_depend_on_what_is_read_with_it(tmp_path, on_disk):
    levels = np.random.default_rng(0).integers(0, 256, (60, 3, 5), dtype=np.uint8)
    np.save(tmp_path / "x.npy", levels)
    splits = pv.data.load(tmp_path / "x.npy")
    assert splits.levels == 256
    for part in (splits.binarize("stochastic").test, splits.dequantize().test):
        assert_close(part[[4, 1]], part[:][[4, 1]], rtol=0, atol=0)
        assert not torch.equal(part[0], part[1])
    noise = splits.dequantize().test[:] * 256 - splits.test[:] * 255
    assert ((noise > -1e-3) & (noise < 1 + 1e-3)).all()
    # Five standard errors of a mean of uniform numbers.
    assert abs(noise.mean().item() - 0.5) < 5 * (1 / 12 / noise.numel()) ** 0.5
    grey = torch.full((2000, 3), 0.3).numpy()
    np.save(tmp_path / "y.npy", grey)
    bits = pv.data.binarize(rows_of(np.load(tmp_path / "y.npy", mmap_mode="r"), "x"), "stochastic")
    assert abs(bits[:].mean().item() - 0.3) < 5 * (0.21 / 6000) ** 0.5


def test_wide_levels_and_colour_in_a_file(tmp_path, on_disk):
    levels = np.random.default_rng(0).integers(0, 2**16, (20, 8, 7, 3), dtype=np.uint16)
    np.save(tmp_path / "x.npy", levels)
    splits = pv.data.load(tmp_path / "x.npy")
    assert (splits.levels, splits.data_shape) == (2**16, (3, 8, 7))
    assert "channels first" in repr(splits)
    x = torch.cat([splits.train[:], splits.valid[:], splits.test[:]])
    expected = levels.astype(np.float32).transpose(0, 3, 1, 2) / 65535
    assert_close(x.flatten().sort().values.numpy(), np.sort(expected.flatten()))


def test_batches_keep_the_order_of_the_data(path, on_disk):
    from pyrovae.data.batches import as_batches

    how = {"shuffle": False, "device": torch.device("cpu"), "dtype": torch.float32}
    for source in (
        X,
        np.load(path, mmap_mode="r"),
        torch.utils.data.TensorDataset(torch.tensor(X)),
    ):
        batches = as_batches(source, 16, programs=[lambda x: x], **how)
        assert_close(torch.cat([batch[0] for batch in batches]).numpy(), X)


def test_reading_ahead_stops_with_its_reader(path, on_disk):
    import threading

    from pyrovae.data.batches import as_batches

    how = {"shuffle": True, "device": torch.device("cpu"), "dtype": torch.float32}
    batches = as_batches(np.load(path, mmap_mode="r"), 4, programs=[lambda x: x], **how)
    before = torch.get_rng_state()
    first = batches.first()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first[0], next(iter(batches))[0])
    assert not [t for t in threading.enumerate() if t.name.startswith("pyrovae-read")]
