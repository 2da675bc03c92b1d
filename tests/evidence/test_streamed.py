"""Evidence of data sets and loaders: the numbers of the whole array, without holding it."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import pyrovae as pv
from pyrovae import nets
from pyrovae.data import rows
from pyrovae.evidence import streamed


class Items(Dataset):
    """A data set of items (x, label)."""

    def __init__(self, x):
        self.x, self.read = x, 0

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        self.read += 1
        return self.x[i], i


class Lines(IterableDataset):
    """Data without a length."""

    def __init__(self, x):
        self.x = x

    def __iter__(self):
        return iter(self.x)


@pytest.fixture
def x():
    x = torch.rand(41, 6, generator=torch.Generator().manual_seed(2)).round()
    x[7] = x[30]  # equal data have streams of their own
    return x


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return pv.VAE((6,), 2, encoder=nets.MLP(8), decoder=nets.MLP(8))


def loader(data, **options):
    return DataLoader(data, batch_size=9, **options)


KINDS = {
    "dataset": Items,
    "tensor dataset": lambda x: TensorDataset(x, torch.arange(len(x))),
    "loader": lambda x: loader(Items(x)),
    "two workers": lambda x: loader(Items(x), num_workers=2),
    "loader without a length": lambda x: loader(Lines(x)),
    "dataset without a length": Lines,
    "list": lambda x: [x.numpy()],
}


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("kind", [*KINDS])
def test_numbers_are_those_of_the_array(vae, x, kind, in_memory, monkeypatch):
    """Bit for bit, whether the data were kept or are read again, in several pieces of work."""
    if kind == "dataset without a length":
        pytest.importorskip("pyrovae.data.loaders")
    if not in_memory:
        monkeypatch.setattr(rows, "IN_MEMORY", -1)
    options = {"num_particles": 30, "memory_budget": 40_000}
    expected = vae.log_marginal(x, **options)
    found = vae.log_marginal(KINDS[kind](x), **options)
    assert found.dataset.identical(expected.dataset)


def test_labels_reach_programs_that_take_them(x, monkeypatch):
    monkeypatch.setattr(rows, "IN_MEMORY", -1)
    torch.manual_seed(0)
    small = {"encoder": nets.MLP(8), "decoder": nets.MLP(8)}
    vae = pv.ConditionalVAE((6,), 2, condition_dim=3, **small)
    y = torch.arange(len(x)) % 3
    expected = vae.log_marginal((x, y), num_particles=5)
    for data in (loader(TensorDataset(x, y)), TensorDataset(x, y), [x, y]):
        assert vae.log_marginal(data, num_particles=5).dataset.identical(expected.dataset)


def test_large_data_are_never_held_as_a_whole(vae, x, monkeypatch):
    monkeypatch.setattr(rows, "IN_MEMORY", -1)
    monkeypatch.setattr(streamed, "_BATCH", 9)
    monkeypatch.setattr(rows, "_PIECE", 200)
    held = []
    read = streamed._Stream.read

    def watched(self, *where):
        found = read(self, *where)
        held.append(sum(len(batch[0]) for batch in self._held))
        return found

    monkeypatch.setattr(streamed._Stream, "read", watched)
    vae.log_marginal(loader(Items(x)), num_particles=30, memory_budget=10_000)
    assert held
    assert max(held) <= 18  # a piece of work may lie in two batches of nine


def once(x):
    class Once(IterableDataset):
        left = iter(x)

        def __iter__(self):
            return self.left

    return loader(Once())


class Noisy(Items):
    def __getitem__(self, i):
        return torch.bernoulli(torch.full((6,), 0.5))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda x: loader(Items(x), shuffle=True), "shuffle=False"),
        (lambda x: loader(Items(x), drop_last=True), "drop_last=False"),
        (lambda x: Items(x[:0]), "empty"),
        (lambda x: loader(Lines(x[:0])), "no batch"),
        (once, "must start anew at each iteration"),
        (lambda x: loader(Noisy(x)), "not the same at a second reading"),
        (lambda x: loader(Items(x * np.nan)), "NaN"),
        (lambda x: loader(Items(x + 0.5)), "Bernoulli is a distribution over 0 and 1"),
    ],
)
def test_data_that_cannot_be_streamed(vae, x, data, message, monkeypatch):
    monkeypatch.setattr(rows, "IN_MEMORY", -1)
    with pytest.raises(ValueError, match=message):
        vae.log_marginal(data(x), num_particles=5)
