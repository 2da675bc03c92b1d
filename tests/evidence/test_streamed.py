"""Evidence of data sets and loaders: the numbers of the whole array, without holding it."""

import weakref

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import pyrovae as pv
from pyrovae import nets
from pyrovae.data import rows
from pyrovae.evidence import streamed
from pyrovae.evidence.streams import data_keys


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


class Watched(DataLoader):
    """A loader that counts how many of the data that it gave are still in memory.

    It gives arrays, which live as long as a tensor that shares their memory.
    """

    def __init__(self, data, batch_size):
        super().__init__(data, batch_size, collate_fn=self.stack)
        self.__dict__.update(held=[], batches=[], read=0)

    def __iter__(self):
        for batch in super().__iter__():
            self.read += len(batch[0])
            self.batches = [each for each in self.batches if each() is not None]
            self.batches.append(weakref.ref(batch[0]))
            self.held.append(sum(len(each()) for each in self.batches))
            yield batch

    @staticmethod
    def stack(items):
        return tuple(
            np.stack([np.asarray(each) for each in column]) for column in zip(*items, strict=True)
        )


@pytest.fixture
def large(monkeypatch):
    """Data that are read again where they are used; a piece of columns would be seven data of x and
    all labels.
    """
    monkeypatch.setattr(rows, "IN_MEMORY", -1)
    monkeypatch.setattr(rows, "_PIECE", 180)


@pytest.mark.parametrize("labels", [False, True])
def test_large_data_are_never_held_as_a_whole(x, labels, large):
    """With labels, whose pieces would hold more data, and with jumps. Two batches of nine may be at
    hand while the next one comes.
    """
    torch.manual_seed(0)
    small = {"encoder": nets.MLP(8), "decoder": nets.MLP(8)}
    vae = pv.ConditionalVAE((6,), 2, 41, **small) if labels else pv.VAE((6,), 2, **small)
    data = Watched(Items(x), batch_size=9)
    vae.log_marginal(data, num_particles=30, memory_budget=10_000)
    assert max(data.held) <= 27
    programs = (vae.model, vae.guide)
    columns = streamed.streamed(data, programs, torch.float32)
    data.held.clear()
    for index in (range(35, 37), range(2), [40, 0, 13, 13], [5]):
        for column, expected in zip(columns, (x, torch.arange(41)), strict=False):
            assert torch.equal(column[np.array(index)], expected[list(index)])
    assert max(data.held) <= 27


def test_arguments_are_read_together(x, large):
    """Labels take no further pass: data of the same numbers are read for all arguments at once."""
    data = Watched(Items(x), batch_size=9)
    columns = streamed.streamed(data, (lambda x, y: None,) * 2, torch.float32)
    data.read = 0
    keys = data_keys(columns, 0)
    assert np.array_equal(keys, data_keys((x, torch.arange(41)), 0))
    for index in np.arange(36).reshape(-1, 4):
        assert [len(column[index]) for column in columns] == [4, 4]
    assert data.read <= 2 * len(x)


def test_without_parameters_data_keep_their_precision(large):
    """As those of an array do, whether they are kept or read again."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1e-3), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1e-3))

    x = torch.rand(9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = pv.log_marginal(model, guide, x, num_particles=5)
    for data in (TensorDataset(x), loader(TensorDataset(x))):
        assert pv.log_marginal(model, guide, data, num_particles=5).dataset.identical(
            expected.dataset
        )


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
