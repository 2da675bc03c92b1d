"""Every density of data, and its gradient, against 150 digits over all parameters that single
precision can carry.
"""

import itertools
import math

import mpmath as mp
import pyro.distributions as dist
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

from pyrovae.distributions import (
    beta,
    continuous_bernoulli,
    counts,
    discretized,
    levels,
    location_scale,
)
from pyrovae.distributions.bernoulli import JointBernoulli
from pyrovae.distributions.positive import Gamma, LogNormal

STEP = mp.mpf(10) ** -40  # of the central difference, whose error is far below all rounding here


@pytest.fixture(autouse=True)
def digits():
    with mp.workdps(150):
        yield


def logistic(t):
    return 1 / (1 + mp.exp(-t))


def poisson(x, log_mean):
    return x * log_mean - mp.exp(log_mean) - mp.loggamma(x + 1)


def negative_binomial(x, log_mean, theta):
    mean = mp.exp(log_mean)
    ways = mp.loggamma(x + theta) - mp.loggamma(theta) - mp.loggamma(x + 1)
    success = x * mp.log(mean / (theta + mean)) if x else 0
    return ways + success + theta * mp.log(theta / (theta + mean))


def zero_inflated(x, log_mean, theta, gate):
    total = logistic(-gate) * mp.exp(negative_binomial(x, log_mean, theta))
    return mp.log(total + (logistic(gate) if x == 0 else 0))


def normal(x, loc, scale):
    return -(((x - loc) / scale) ** 2) / 2 - mp.log(scale) - mp.log(2 * mp.pi) / 2


def laplace(x, loc, scale):
    return -abs(x - loc) / scale - mp.log(2 * scale)


def student(x, loc, scale, df):
    offset = mp.loggamma((df + 1) / 2) - mp.loggamma(df / 2) - mp.log(df * mp.pi) / 2
    return offset - mp.log(scale) - (df + 1) / 2 * mp.log(1 + ((x - loc) / scale) ** 2 / df)


def beta_density(x, a, b):
    log_beta = mp.loggamma(a) + mp.loggamma(b) - mp.loggamma(a + b)
    return (a - 1) * mp.log(x) + (b - 1) * mp.log(1 - x) - log_beta


def log_normal(x, loc, scale):
    return normal(mp.log(x), loc, scale) - mp.log(x)


def gamma(x, log_mean, a):
    rate = a * mp.exp(-log_mean)
    return a * mp.log(rate) - mp.loggamma(a) + (a - 1) * mp.log(x) - rate * x


def bernoulli(x, logit):
    return x * logit - mp.log(1 + mp.exp(logit))


def continuous(x, logit):
    return x * logit - (mp.log(mp.expm1(logit) / logit) if logit else 0)


def discretized_logistic(x, loc, scale, num_levels=256):
    half = mp.mpf(1) / (2 * (num_levels - 1))
    k = round(float(x) * (num_levels - 1))
    # Tails, not differences from one, which 150 digits would not hold for narrow scales.
    above = 0 if k == num_levels - 1 else logistic((loc - x - half) / scale)
    below = 0 if k == 0 else logistic((x - half - loc) / scale)
    if 0 < k < num_levels - 1:
        u, v = (x + half - loc) / scale, (x - half - loc) / scale
        return mp.log(logistic(u)) + mp.log(logistic(-v)) + mp.log(-mp.expm1(v - u))
    return mp.log(
        logistic((x + half - loc) / scale)
        if above
        else logistic(-(x - half - loc) / scale) * bool(below)
    )


def categorical(x, *logits):
    k = round(float(x) * (len(logits) - 1))
    top = max(logits)
    return logits[k] - top - mp.log(sum(mp.exp(l - top) for l in logits))


def mixture(x, *parameters):
    """Two components of one grey element: logits, locations and scales."""
    weights, locs, scales = parameters[:2], parameters[2:4], parameters[4:]
    shares = [mp.exp(w - max(weights)) for w in weights]
    masses = [mp.exp(discretized_logistic(x, *p)) for p in zip(locs, scales, strict=True)]
    return mp.log(sum(s * m for s, m in zip(shares, masses, strict=True)) / sum(shares))


def make_mixture(*parameters):
    columns = [torch.stack(parameters[i : i + 2], -1).unsqueeze(-1) for i in (0, 2, 4)]
    return discretized.DiscretizedLogisticMixture(*columns, num_pixel_dims=1)


def count_cases():
    for x in (0, 1, 2, 7, 100, 1e4, 1e6, 1e9, 1e15, 1e30):
        width = max(x, 1) ** -0.5
        sizes = (0, 1e-6, width, 3 * width, 0.4999, 0.5, 0.5001, 1, 5)
        yield from ((x, math.log(max(x, 1)) + sign * r) for r in sizes for sign in (1, -1))
        yield from ((x, log_mean) for log_mean in (-80.0, -10.0, 0.1, 10.0, 80.0))


def dispersed_cases():
    thetas = (1e-30, 1e-8, 1e-3, 0.5, 1, 30, 1e4, 1e6, 1e8, 1e15, 1e30)
    for (x, log_mean), theta in itertools.product(count_cases(), thetas):
        yield x, log_mean, theta


def inflated_cases():
    gates = (-80, -5, -1e-3, 0, 0.5, 5, 80, 1e4)
    for (x, log_mean, theta), gate in itertools.product(dispersed_cases(), gates):
        if x in (0, 1, 100, 1e6) and theta in (1e-8, 0.5, 1e4, 1e8):
            yield x, log_mean, theta, gate


def real_cases():
    for t, loc, scale in itertools.product(
        (0.25, 1, -5, 1e-10, -1e3, 1e10), (0, -3.3, 1e10), (1e-20, 1e-3, 1, 1e20)
    ):
        if abs(loc) < 1e6 * abs(t) * scale:  # else x, rounded, is the location itself
            yield loc + t * scale, loc, scale


def student_cases():
    dfs = (1e-6, 0.1, 1, 4, 1e3, 1e4, 1e6, 1e10, 1e30)
    for (x, loc, scale), df in itertools.product(real_cases(), dfs):
        yield x, loc, scale, df
    for t, df in itertools.product((1e15, 1e25, -1e30), dfs):
        yield t, 0.0, 1.0, df


def beta_cases():
    sizes = (1e-7, 1e-3, 0.5, 1, 30, 1e4, 1e5, 1e7, 1e12, 1e20)
    for a, b in itertools.product(sizes, sizes):
        mean, width = a / (a + b), (a * b / (a + b + 1)) ** 0.5 / (a + b)
        for x in (mean, mean + width, mean - 3 * width, mean * 1.2499, mean * 1.2501, 1e-30, 0.5):
            if 0 < x < 1 - 1e-7:
                yield x, a, b


def log_normal_cases():
    for t, loc, scale in itertools.product((0.25, 1, -5, 1e-3), (0, -3.3, 20), (0.1, 1, 3)):
        yield math.exp(loc + t * scale), loc, scale


def gamma_cases():
    for a, log_mean in itertools.product((1e-6, 1e-3, 0.5, 1, 7, 100), (-20, 0, 0.1, 3, 20)):
        width = a**-0.5
        for t in (0, 1e-3, 1, -2, 5):
            yield math.exp(log_mean + t * min(width, 1)), log_mean, a
        yield 1e-30, log_mean, a


def unit_cases():
    sizes = (0, 1e-30, 1e-3, 0.999, 1, 1.001, 4, 80, 1e4, 1e10, 1e30)
    for x, size, sign in itertools.product((0, 1e-10, 0.25, 0.5, 1 - 2**-24, 1), sizes, (1, -1)):
        yield x, sign * size


def bit_cases():
    yield from ((x, l) for x, l in unit_cases() if x in (0, 1))


def level_cases():
    values = [k / 255 for k in (0, 1, 128, 254, 255)]
    locs, scales = (-30, 0, 0.3, 0.5, 1, 1e4), (1e-8, 5e-4, 0.1, 1, 1e4, 1e20)
    yield from itertools.product(values, locs, scales)


def categorical_cases():
    for k, size in itertools.product(range(4), (0, 1e-3, 1, 30, 1e4, 1e30)):
        yield (k / 3, *(size * c for c in (0.3, -0.7, 1.0, 0.2)))


def mixture_cases():
    for (x, loc, scale), weight in itertools.product(level_cases(), (-80, 0, 5)):
        if scale < 1e10:
            yield x, weight, 0.5, loc, 0.4, scale, 0.05


# name: (distribution of the parameters, log density in mpmath, which parameters are positive,
# cases)
DENSITIES = {
    "Poisson": (counts.Poisson, poisson, (0,), count_cases),
    "NegativeBinomial": (counts.NegativeBinomial, negative_binomial, (0, 1), dispersed_cases),
    "ZeroInflatedNegativeBinomial": (
        counts.ZeroInflatedNegativeBinomial, zero_inflated, (0, 1, 0), inflated_cases,
    ),
    "Normal": (location_scale.Normal, normal, (0, 1), real_cases),
    "Laplace": (location_scale.Laplace, laplace, (0, 1), real_cases),
    "StudentT": (
        lambda loc, scale, df: location_scale.StudentT(df, loc, scale), student, (0, 1, 1),
        student_cases,
    ),
    "Beta": (beta.Beta, beta_density, (1, 1), beta_cases),
    "LogNormal": (LogNormal, log_normal, (0, 1), log_normal_cases),
    "Gamma": (Gamma, gamma, (0, 1), gamma_cases),
    "Bernoulli": (
        lambda l: JointBernoulli(dist.Bernoulli(logits=l.unsqueeze(-1), validate_args=False), 1),
        bernoulli, (0,), bit_cases,
    ),
    "ContinuousBernoulli": (continuous_bernoulli.ContinuousBernoulli, continuous, (0,), unit_cases),
    "DiscretizedLogistic": (
        discretized.DiscretizedLogistic, discretized_logistic, (0, 1), level_cases,
    ),
    "DiscretizedLogisticMixture": (make_mixture, mixture, (0, 0, 0, 0, 1, 1), mixture_cases),
    "LevelCategorical": (
        lambda *logits: levels.LevelCategorical(torch.stack(logits, -1)),
        categorical, (0,) * 4, categorical_cases,
    ),
}  # fmt: skip


LARGEST = {
    "Poisson": 1e6,
    "NegativeBinomial": 1e6,
    "ZeroInflatedNegativeBinomial": 1e6,
    "StudentT": 1e6,
    "Beta": 1e7,
    "ContinuousBernoulli": 1e30,
}


def derivative(function, arguments, index, positive):
    """With respect to the parameter, or to the logarithm of a positive one."""

    def moved(step):
        value = arguments[index]
        value = value * mp.exp(step) if positive else value + step
        return function(*arguments[:index], value, *arguments[index + 1 :])

    return (moved(STEP) - moved(-STEP)) / (2 * STEP)


def worst(found, exact, limit):
    """The largest error, in units of 1 + |exact|, and where; what the precision cannot hold counts
    as infinite.
    """
    errors = []
    for left, right in zip(found, exact, strict=True):
        if abs(right) > limit:
            errors.append(0.0 if mp.isinf(left) and (left > 0) == (right > 0) else math.inf)
        elif not mp.isfinite(left):
            errors.append(math.inf)
        else:
            errors.append(float(abs(left - right) / (1 + abs(right))))
    return max((e, i) for i, e in enumerate(errors))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", DENSITIES)
def test_density_and_gradient_are_accurate(name, dtype):
    build, function, kinds, cases = DENSITIES[name]
    rows = torch.tensor(list(cases()), dtype=torch.float64).to(dtype)
    if dtype == torch.float64 and name in LARGEST:
        # Beyond, the rounding of the parameters themselves moves the result by more than the
        # tolerance.
        rows = rows[rows.abs().amax(1) <= LARGEST[name]]
    x, *parameters = rows.unbind(1)
    leaves = [p.clone().requires_grad_() for p in parameters]
    distribution = build(*leaves)
    value = distribution.log_prob(x.unsqueeze(-1) if distribution.event_shape else x)
    gradients = torch.autograd.grad(value.sum(), leaves)
    exact = [[mp.mpf(number) for number in row] for row in rows.tolist()]
    tolerance = 1e-5 if dtype == torch.float32 else 1e-9  # a few roundings of terms of its size
    limit = torch.finfo(dtype).max
    error, i = worst(value.tolist(), [function(*row) for row in exact], limit)
    assert error < tolerance, (rows[i].tolist(), value[i].item(), mp.nstr(function(*exact[i]), 12))
    for j, (gradient, positive) in enumerate(zip(gradients, kinds, strict=True)):
        factors = parameters[j].tolist() if positive else [1] * len(rows)
        found = [mp.mpf(g) * f for g, f in zip(gradient.tolist(), factors, strict=True)]
        truth = [derivative(function, row, j + 1, positive) for row in exact]
        if name == "StudentT" and j == 2:  # a difference of numbers as large as the density itself
            sizes = [1 + abs(function(*row)) for row in exact]
            found, truth = ([n / s for n, s in zip(l, sizes, strict=True)] for l in (found, truth))
        held = [
            i for i, t in enumerate(truth) if not positive or abs(t) < limit * abs(exact[i][j + 1])
        ]
        error, i = worst([found[i] for i in held], [truth[i] for i in held], limit)
        i = held[i]
        assert error < 3 * tolerance, (
            j,
            rows[i].tolist(),
            mp.nstr(found[i], 9),
            mp.nstr(truth[i], 12),
        )


@pytest.mark.parametrize("name", DENSITIES)
def test_captured_graphs_are_as_accurate(name):
    """Graphs take other kernels for some functions; values and gradients agree with the eager ones,
    seen above.
    """
    build, _, _, cases = DENSITIES[name]
    rows = torch.tensor(list(cases()), dtype=torch.float64).float()
    x, *parameters = rows.unbind(1)

    def step(x, *parameters):
        with torch.enable_grad():
            leaves = [p.detach().requires_grad_() for p in parameters]
            distribution = build(*leaves)
            value = distribution.log_prob(x.unsqueeze(-1) if distribution.event_shape else x)
            return value, *torch.autograd.grad(value.sum(), leaves)

    for found, expected in zip(
        make_fx(step)(x, *parameters)(x, *parameters), step(x, *parameters), strict=True
    ):
        # Both are within 1e-5, relative to one more than their size, of the truth.
        assert_close(found, expected, rtol=2e-5, atol=2e-5, equal_nan=True)
