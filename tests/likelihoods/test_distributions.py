"""Every data-space distribution: normalised, sampled as it scores, smooth, finite at its edges,
cheap to expand.
"""

import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributions as td
from torch.testing import assert_close

from pyrovae.distributions import (
    beta,
    continuous_bernoulli,
    counts,
    discretized,
    levels,
    location_scale,
    positive,
    special,
)

F64 = torch.float64
L = 6  # grey levels in these tests


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def theta(a):
    return (0.7 * a).exp()


# From unconstrained parameters to the distribution; how many it takes; what it is summed or
# integrated over.
REAL = {
    "Normal": (lambda a, b: location_scale.Normal(a, theta(b)), 2),
    "Laplace": (lambda a, b: location_scale.Laplace(a, theta(b)), 2),
    "StudentT": (lambda a, b, c: location_scale.StudentT(2 + theta(c), a, theta(b)), 3),
}
UNIT = {
    "ContinuousBernoulli": (lambda a: continuous_bernoulli.ContinuousBernoulli(3 * a), 1),
    "Beta": (lambda a, b: beta.Beta(0.5 + theta(a), 0.5 + theta(b)), 2),
}
POSITIVE = {
    "LogNormal": (lambda a, b: positive.LogNormal(a, theta(b)), 2),
    "Gamma": (lambda a, b: positive.Gamma(a, 0.5 + theta(b)), 2),
}
COUNTS = {
    "Poisson": (counts.Poisson, 1),
    "NegativeBinomial": (lambda a, b: counts.NegativeBinomial(a, theta(b)), 2),
    "ZeroInflatedNegativeBinomial": (
        lambda a, b, c: counts.ZeroInflatedNegativeBinomial(a, theta(b), c),
        3,
    ),
}
LEVELS = {
    "DiscretizedLogistic": (lambda a, b: discretized.DiscretizedLogistic(a, 0.2 * theta(b), L), 2),
    "LevelCategorical": (
        lambda *logits: levels.LevelCategorical(torch.stack(torch.broadcast_tensors(*logits), -1)),
        L,
    ),
}
ALL = {**REAL, **UNIT, **POSITIVE, **COUNTS, **LEVELS}
TORCH = {
    "Normal": lambda a, b: td.Normal(a, theta(b)),
    "Laplace": lambda a, b: td.Laplace(a, theta(b)),
    "StudentT": lambda a, b, c: td.StudentT(2 + theta(c), a, theta(b)),
    "Beta": lambda a, b: td.Beta(0.5 + theta(a), 0.5 + theta(b)),
    "LogNormal": lambda a, b: td.LogNormal(a, theta(b)),
    "Gamma": lambda a, b: td.Gamma(0.5 + theta(b), (0.5 + theta(b)) * (-a).exp()),
    "Poisson": lambda a: td.Poisson(a.exp()),
    "NegativeBinomial": lambda a, b: td.NegativeBinomial(theta(b), logits=a - 0.7 * b),
}
GREYS = levels.from_levels(torch.arange(L, dtype=F64), L)
names = pytest.mark.parametrize("name", ALL)


def make(name, *shape, seed=0):
    build, number = ALL[name]
    return build(*(normal(*shape, seed=seed + i) for i in range(number)))


def support_of(name):
    """Points, and their weights, over which exp(log_prob) must add up to one."""
    if name in LEVELS:
        return GREYS, torch.ones(L, dtype=F64)
    if name in COUNTS:
        return torch.arange(20_000, dtype=F64), torch.ones(20_000, dtype=F64)
    # Double-exponential substitutions turn integrable edges and heavy tails into rapid decay: the
    # trapezoid rule then errs by less than 1e-7 for every density here; most at the Laplace's kink.
    t = torch.linspace(-3.4, 3.4, 60_001, dtype=F64)
    step = t[1] - t[0]
    inner, slope = 0.5 * math.pi * t.sinh(), 0.5 * math.pi * t.cosh()
    if name in REAL:
        return inner.sinh(), step * slope * inner.cosh()
    if name in POSITIVE:  # log x up to 188: a log-normal's mean lies at most near 64, by 8 sigma
        return (8 * inner).exp(), step * 8 * slope * (8 * inner).exp()
    return (2 * inner).sigmoid(), step * slope * 2 * (2 * inner).sigmoid() * (-2 * inner).sigmoid()


def draw_one(name):
    """A draw's (*sample, B) values from the parameters of seed 3."""
    torch.manual_seed(0)
    d = make(name, 5, seed=3)
    return d, d.sample((20_000,))


@names
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_adds_up_to_one_and_has_its_mean(name, seed):
    d = make(name, 4, seed=seed)
    points, weights = support_of(name)
    # Points that rounding puts on the open interval's ends: at most (1e-16)^0.5 of the mass, as a,
    # b > 0.5.
    inside = (
        (points > 0) & (points < 1) if name == "Beta" else torch.ones_like(points, dtype=torch.bool)
    )
    points, weights = points[inside, None], weights[inside, None]
    if name in REAL:  # grid about the centre, so that the Laplace's kink is one of its points
        points, weights = d.loc + d.scale * points, d.scale * weights
    mass = d.log_prob(points).exp() * weights
    # Tails cut off: counts beyond 20,000; |x| beyond 1e20 for Student-t of two or more degrees of
    # freedom.
    assert_close(mass.sum(0), torch.ones(4, dtype=F64), atol=1e-6, rtol=0)
    # A Student-t mean of few degrees of freedom converges like the square root of the cut tail.
    assert_close((mass * points).sum(0), d.mean, atol=1e-5, rtol=1e-5)


@names
def test_samples_follow_the_density(name):
    d, x = draw_one(name)
    points, weights = support_of(name)
    probability = d.log_prob(points[:, None]).exp().nan_to_num(posinf=0) * weights[:, None]
    cdf = probability.cumsum(0)
    # Kolmogorov-Smirnov at 20,000 draws: 2.2/sqrt(n) has probability 1e-4 under the null; step
    # functions less.
    index = torch.searchsorted(points, x.contiguous(), right=True) - 1
    assert (index >= 0).all()
    if name in COUNTS or name in LEVELS:
        assert_close(points[index], x, atol=1e-12, rtol=0)
    for j in range(5):
        values, _ = index[:, j].sort()
        empirical = torch.arange(1, len(values) + 1, dtype=F64) / len(values)
        last = torch.cat([values[1:] != values[:-1], torch.ones(1, dtype=torch.bool)])
        distance = (empirical - cdf[values, j])[last].abs().max()
        assert distance < 2.2 / math.sqrt(len(values)) + 1e-3 * (
            name in REAL or name in UNIT or name in POSITIVE
        )


@pytest.mark.parametrize("name", TORCH)
def test_agrees_with_torch_where_torch_has_it(name):
    parameters = [normal(7, seed=i) for i in range(ALL[name][1])]
    x = TORCH[name](*parameters).sample((50,))
    assert_close(ALL[name][0](*parameters).log_prob(x), TORCH[name](*parameters).log_prob(x))


@names
def test_gradients(name):
    build, number = ALL[name]
    parameters = [normal(3, seed=i).requires_grad_() for i in range(number)]
    x = build(*parameters).sample((4,))
    assert torch.autograd.gradcheck(lambda *p: build(*p).log_prob(x), parameters)


@names
@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 3), max_size=3),
    ones=st.lists(st.booleans(), min_size=8, max_size=8),
    lead=st.lists(st.integers(1, 3), max_size=2),
    sample=st.lists(st.integers(1, 2), max_size=2),
)
def test_shapes(name, shape, ones, lead, sample):
    """Parameters of broadcasting shapes, expanded to more batch dimensions, score as plainly
    expanded ones do.
    """
    build, number = ALL[name]
    parameters = [
        normal(*(1 if one and i else size for size in shape), seed=i)
        for i, one in zip(range(number), ones * 2, strict=False)
    ]
    d = build(*parameters)
    assert d.batch_shape == torch.Size(shape)
    big = d.expand((*lead, *shape))
    assert big.batch_shape == torch.Size((*lead, *shape))
    assert big.mean.shape == big.batch_shape
    x = big.sample(sample)
    assert x.shape == (*sample, *lead, *shape)
    assert d.support.check(x).all()
    plain = build(*(p.expand((*lead, *shape)) for p in parameters))
    assert_close(big.log_prob(x), plain.log_prob(x))
    once = d.sample()
    assert_close(big.log_prob(once), plain.log_prob(once).expand((*lead, *shape)))
    total = plain.log_prob(x).sum(tuple(range(-len(shape), 0))) if shape else plain.log_prob(x)
    assert_close(big.to_event(len(shape)).log_prob(x), total)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_at_the_edges(dtype):
    """Edges of each support, and parameters far from them: finite values and gradients."""
    wide = torch.tensor([-60.0, -3.0, 0.0, 3.0, 60.0], dtype=dtype)
    edges = torch.tensor([[0.0], [1.0]], dtype=dtype)
    large = torch.tensor([[0.0], [1.0], [1e4], [1e7]], dtype=dtype)
    for build, x in [
        (continuous_bernoulli.ContinuousBernoulli, edges),
        (lambda p: discretized.DiscretizedLogistic(p, torch.tensor(5e-4, dtype=dtype)), edges),
        (lambda p: discretized.DiscretizedLogistic(torch.zeros_like(p), (p / 6).exp()), edges),
        (lambda p: levels.LevelCategorical(torch.stack([p, -p], -1)), edges),
        (lambda p: counts.Poisson(p / 4), large),
        (lambda p: counts.NegativeBinomial(p / 4, torch.tensor(2.0, dtype=dtype)), large),
        (lambda p: counts.NegativeBinomial(p / 4, (p / 4).exp()), large),
        (lambda p: counts.ZeroInflatedNegativeBinomial(p / 4, (p / 4).exp(), p), large),
    ]:
        parameter = wide.clone().requires_grad_()
        value = build(parameter).log_prob(x)
        (gradient,) = torch.autograd.grad(value.sum(), parameter)
        assert value.isfinite().all()
        assert gradient.isfinite().all()


@mpmath.workdps(50)
def test_continuous_bernoulli_is_accurate_near_one_half():
    """Against 50 digits: normaliser, slope and mean, on both sides of the switch between the two
    formulas.
    """
    logits = [
        s * l
        for s in (1, -1)
        for l in (1e-12, 1e-6, 1e-3, 0.004, 0.1, 0.9999, 1.0001, 4.0, 30.0, 500.0)
    ]
    p = torch.tensor([0.0, *logits], dtype=F64, requires_grad=True)
    d = continuous_bernoulli.ContinuousBernoulli(p)
    value = d.log_prob(torch.tensor(0.25, dtype=F64))
    (slope,) = torch.autograd.grad(value.sum(), p)
    for i, l in enumerate(logits, start=1):
        l = mpmath.mpf(l)
        mean = 1 / (1 - mpmath.exp(-l)) - 1 / l
        exact = l / 4 - mpmath.log(mpmath.expm1(l) / l)
        assert abs(value[i].item() - exact) < 1e-14 * max(1, abs(exact))
        assert abs(slope[i].item() - (mpmath.mpf(0.25) - mean)) < 2e-14
        assert abs(d.mean[i].item() - mean) < 2e-14
    assert (value[0].item(), slope[0].item(), d.mean[0].item()) == (0.0, -0.25, 0.5)


def test_float32_counts_keep_their_digits():
    """Where log-gammas of 1e7 would leave half a nat of rounding, float32 agrees with float64 to
    1e-2.
    """
    x = torch.tensor([0.0, 10.0, 1e3, 1e5])
    for size in (1.0, 1e3, 1e6):
        log_mean = (x + 1).log()
        single = counts.NegativeBinomial(log_mean, torch.tensor(size)).log_prob(x)
        double = counts.NegativeBinomial(
            (x.double() + 1).log(), torch.tensor(size, dtype=F64)
        ).log_prob(x.double())
        # The largest terms are about 3e5, which float32 rounds at 2e-2; for counts of 1e3, 4e3 and
        # 2e-4.
        assert_close(single.double(), double, atol=3e-2, rtol=0)
        assert_close(single[:3].double(), double[:3], atol=5e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("log_mean", [20.0, 25.0, 50.0, 80.0])
def test_counts_beyond_64_bits_are_drawn(log_mean, dtype):
    """torch's own Poisson draws turn negative at means of 2^63 and more."""
    torch.manual_seed(0)
    location, theta = torch.full((20_000,), log_mean, dtype=dtype), torch.tensor(4.0, dtype=dtype)
    poisson, mean = counts.Poisson(location), math.exp(log_mean)
    x = poisson.sample()
    assert torch.equal(x, x.round())
    assert torch.isfinite(poisson.log_prob(x)).all()
    if dtype == F64:
        scaled = (x - mean) / math.sqrt(mean)
        # Five standard errors; beyond e^50 the spacing of doubles hides the noise.
        assert log_mean > 50 or abs(scaled.mean()) < 5 / math.sqrt(20_000)
        assert log_mean > 50 or abs(scaled.var() - 1) < 5 * math.sqrt(2 / 20_000)
    ratio = counts.NegativeBinomial(location, theta).sample() / mean  # gamma, of variance 1/4
    assert ratio.min() > 0
    assert abs(ratio.mean() - 1) < 5 * math.sqrt(0.25 / 20_000)
    assert torch.isfinite(counts.Poisson(torch.tensor(1e3, dtype=dtype)).sample())


def test_negative_binomial_tends_to_poisson():
    x = torch.arange(50, dtype=F64)
    near = counts.NegativeBinomial(torch.tensor(2.0, dtype=F64), torch.tensor(1e6, dtype=F64))
    # The difference is of order ((x - mean)^2 + x) / theta, at most 2e3 / 1e6.
    assert_close(
        near.log_prob(x),
        counts.Poisson(torch.tensor(2.0, dtype=F64)).log_prob(x),
        atol=2e-3,
        rtol=0,
    )


def test_shared_parameters_stay_small(monkeypatch):
    """Nothing is computed at the full shape for a parameter that does not have it."""
    scale = torch.ones(4, requires_grad=True)
    d = location_scale.Normal(torch.zeros(1, 1, 4), scale).expand((7, 5, 4))
    assert d.scale is scale
    nb = counts.NegativeBinomial(torch.zeros(7, 5, 4), torch.ones(4))
    sizes = []

    def watch(x):
        sizes.append(x.shape)
        return special.stirling_error(x)

    monkeypatch.setattr(counts, "stirling_error", watch)
    nb.log_prob(torch.ones(5, 4))
    assert set(sizes) == {torch.Size((5, 4)), torch.Size((4,))}


def test_level_convention():
    """k / (L - 1) and back, for every level of 8-bit images in float32; halves of a step are no
    level.
    """
    k = torch.arange(256, dtype=torch.float32)
    assert torch.equal(levels.to_levels(k / 255, 256), k)
    assert torch.equal(levels.from_levels(k, 256), k / 255)
    assert not levels.off_level(k / 255, 256).any()
    assert levels.off_level(
        torch.tensor([0.5 / 255, -1 / 255, 256 / 255, math.nan, 100.0]), 256
    ).all()
