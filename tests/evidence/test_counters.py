"""Numbers made of keys and counters have the distribution that they should have, and nothing else
in common.
"""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from pyrovae.evidence import counters
from pyrovae.evidence.streams import DatumStreams, data_keys, mix_keys

CPU = torch.device("cpu")
WORD = 1 << 64


def signed(word):
    return word - WORD if word >= WORD // 2 else word


def keys_of(num, seed=0):
    found = data_keys((torch.arange(float(num)),), seed)
    return torch.from_numpy(found.view(np.int64))


def normal(keys, num_particles, num, dtype, start=0):
    words = counters.num_words(num, dtype)
    return counters.normal(keys, counters.counters(num_particles, start, words, CPU), [num], dtype)


def uniform(keys, num_particles, num, dtype, start=0):
    return counters.uniform(keys, counters.counters(num_particles, start, num, CPU), [num], dtype)


def unmixed(word):
    """What the finaliser turns into this word."""
    for shift, factor in ((31, 0x94D049BB133111EB), (27, 0xBF58476D1CE4E5B9), (30, 1)):
        found = word
        for _ in range(64 // shift + 1):
            found = word ^ (found >> shift)
        word = found * pow(factor, -1, WORD) % WORD
    return word


def test_words_are_those_of_splitmix64():
    """Its first outputs from seed 0, as other implementations publish them."""
    golden = 0x9E3779B97F4A7C15
    states = torch.tensor([signed(golden * i % WORD) for i in (1, 2, 3)])
    known = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert counters.mix(states).tolist() == [signed(word) for word in known]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("draw", "law"), [(normal, stats.norm), (uniform, stats.uniform)], ids=["normal", "uniform"]
)
def test_distribution(draw, law, dtype):
    """Kolmogorov and Smirnov over all numbers, over those of one element, one datum, one particle;
    moments up to the fourth within five standard errors.
    """
    numbers = draw(keys_of(100), 200, 51, dtype).double().numpy()
    for some in (numbers, numbers[..., 0], numbers[..., 50], numbers[:, 7], numbers[3]):
        assert stats.kstest(some.ravel(), law.cdf).pvalue > 1e-3
    for power in (1, 2, 3, 4):
        mean, second = law.moment(power), law.moment(2 * power)
        error = math.sqrt((second - mean**2) / numbers.size)
        assert abs((numbers**power).mean() - mean) < 5 * error


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tails(dtype):
    """How many of 2e7 numbers lie far out: by the closed form 1,267 beyond 4, and 11 beyond 5."""
    met = {4.0: 0, 4.5: 0, 5.0: 0}
    num = 0
    for start in range(0, 5000, 1000):
        z = normal(keys_of(100), 1000, 40, dtype, start)
        num += z.numel()
        for far in met:
            met[far] += int((z.abs() > far).sum())
    for far, found in met.items():
        count = stats.poisson(num * math.erfc(far / math.sqrt(2)))
        assert count.cdf(found) > 1e-4
        assert count.sf(found - 1) > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_neighbours_are_independent(dtype):
    """Values, squares, and values with squares do not correlate: between elements, the two of a
    pair, particles, data, draws, and keys that differ in one bit.
    """
    keys = torch.from_numpy(mix_keys(np.arange(60, dtype=np.uint64), 4).view(np.int64))
    z = normal(keys, 100, 40, dtype).double()
    pairs = {
        "element": (z[..., :-1], z[..., 1:]),
        "pair": (z[..., :20], z[..., 20:]),
        "particle": (z[:-1], z[1:]),
        "datum": (z[:, :-1], z[:, 1:]),
    }
    for bit in range(64):
        other = normal(keys ^ signed(1 << bit), 100, 40, dtype).double()
        pairs[f"bit {bit}"] = z, other
    streams = DatumStreams(keys.numpy().view(np.uint64), 100)
    like = torch.empty(100, 60, 40, dtype=dtype)
    pairs["draw"] = streams.normal(like).double(), streams.normal(like).double()
    for name, (a, b) in pairs.items():
        for first in (a, a.square()):
            for second in (b, b.square()):
                found = torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]
                # Five standard errors of a correlation that is zero.
                assert abs(found) < 5 / math.sqrt(a.numel()), name


def test_every_bit_of_a_key_and_of_a_counter_turns_every_bit_of_a_word():
    """Strict avalanche: each of 64 output bits changes in half of 10,000 cases."""
    mixed, keys = counters.counters(100, 0, 100, CPU), keys_of(1)
    before = counters._words(keys, mixed)
    shift = torch.arange(64)
    for bit in range(64):
        turned = (counters._words(keys ^ signed(1 << bit), mixed) ^ before).reshape(-1, 1)
        share = (turned >> shift & 1).double().mean(0)
        assert (share - 0.5).abs().max() < 6 * 0.5 / 100  # of 64 x 64 shares
    particles, words = torch.arange(10_000) << 32, torch.arange(10_000)
    for counted in (particles, words):
        for bit in (0, 1, 5, 12):
            turned = counters.mix(counters.mix(counted) + keys) ^ counters.mix(
                counters.mix(counted ^ (1 << bit + (32 if counted is particles else 0))) + keys
            )
            share = (turned[:, None] >> shift & 1).double().mean(0)
            assert (share - 0.5).abs().max() < 6 * 0.5 / 100


def test_streams_have_no_word_in_common():
    """Chance alone would repeat one of these three million words with probability 3e-7."""
    mixed = counters.counters(100, 0, 100, CPU)
    consecutive = torch.arange(100)
    apart = torch.tensor([signed((1 << 63) + (i << 32)) for i in range(100)])
    words = [counters._words(keys, mixed) for keys in (consecutive, apart, keys_of(100))]
    assert len(torch.cat(words).unique()) == 3_000_000


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_words_at_the_ends_give_finite_numbers(dtype):
    keys = torch.tensor([signed(unmixed(word)) for word in (0, WORD - 1, WORD // 2)])
    none = torch.zeros(1, 2, dtype=torch.int64)
    assert (counters._words(keys, none)[0, :, 0] == torch.tensor([0, -1, -WORD // 2])).all()
    z = counters.normal(keys, none, [2], dtype)
    assert z.dtype == dtype
    assert z.isfinite().all()
    assert z[0, 0, 0] > 7.5
    u = counters.uniform(keys, none, [2], dtype)
    assert u.dtype == dtype
    assert u[0, :, 0].tolist() == [0, 1 - torch.finfo(dtype).eps / 2, 0.5]


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 5)])
@pytest.mark.parametrize("inner", [(), (3,)])
def test_pieces_are_parts_of_the_whole(shape, inner):
    """Whatever the first particle, the other data, and the number of threads; for all layouts."""
    keys = data_keys((torch.arange(5.0),), 1)

    def drawn(num, start, chosen):
        streams = DatumStreams(keys[chosen], num, start, axis=1 + len(inner))
        size = num, *inner, len(keys[chosen]), *shape
        with streams:
            return torch.randn(size), torch.rand(size, dtype=torch.float64)

    whole, threads = drawn(20, 0, slice(None)), torch.get_num_threads()
    torch.set_num_threads(threads % 2 + 1)
    try:
        for found, all_of_them in zip(drawn(9, 7, slice(3, 1, -1)), whole, strict=True):
            place = (slice(7, 16), *[slice(None)] * len(inner), [3, 2])
            assert torch.equal(found, all_of_them[place])
            assert len(found.unique()) == found.numel()
    finally:
        torch.set_num_threads(threads)


def test_means_deviations_and_bounds():
    keys = data_keys((torch.arange(5.0),), 1)
    size = 4, 5, 3

    def drawn(fill):
        with DatumStreams(keys, 4):
            return fill(torch.empty(size, dtype=torch.float64))

    plain, even = drawn(lambda t: t.normal_()), drawn(lambda t: t.uniform_())
    for found in (
        drawn(lambda t: t.normal_(2.0, 3.0)),
        drawn(lambda t: t.normal_(std=3.0, mean=2.0)),
        drawn(lambda t: torch.normal(2.0, 3.0, t.shape, dtype=t.dtype)),
    ):
        torch.testing.assert_close(found, 2 + 3 * plain)
    torch.testing.assert_close(drawn(lambda t: t.normal_(std=3.0)), 3 * plain)
    torch.testing.assert_close(drawn(lambda t: t.uniform_(-1, 3)), 4 * even - 1)
    torch.testing.assert_close(drawn(lambda t: t.uniform_(to=3)), 3 * even)
