"""Parts are fixed by the seed, carry their labels, and are binarised as they say."""

import numpy as np
import pytest
import torch

from pyrovae import data


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
        (
            np.where(np.arange(12) < 11, np.arange(12) / 2, np.nan),
            "Covariates in .* hold NaN or infinite values, in 1 of",
        ),
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


def test_a_data_set_is_no_array():
    """What to give in its place; a data set would stand for all arguments."""
    items = torch.utils.data.TensorDataset(torch.ones(9, 2), torch.arange(9))
    for given in (items, torch.utils.data.DataLoader(items)):
        with pytest.raises(TypeError, match=r"where one array is expected.*dataset\.tensors"):
            data.split(given)
    assert data.split(*items.tensors).labels is not None
