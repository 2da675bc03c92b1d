"""The power spherical against mpmath, from the smallest to the largest concentration that float32
carries.

The truth is evaluated at the very float32 numbers that the code is given, so the error that is left
is that of the formula. It may reach some roundings of the terms that the density is a sum of, and
no more.
"""

import math

import mpmath as mp
import pytest
import torch
from helpers.exact import EPS, LARGEST, SMALLEST, assert_rounded, exact
from torch.distributions import kl_divergence

from pyrovae.distributions.spherical import HypersphericalUniform, PowerSpherical


@pytest.fixture(autouse=True)
def digits():
    torch.manual_seed(0)
    with mp.workdps(60):
        yield


CONCENTRATIONS = [
    SMALLEST, 1e-20, 1e-6, 0.1, 1.0, 30.0, 1e3, 9.99e3, 1e4, 1.01e4, 1e5, 1e6, 1e8, 1e12,
    1e20, 1e30, LARGEST,
]  # fmt: skip
spheres = pytest.mark.parametrize("dim", [2, 3, 10, 301])


def pole_and_point(dim, angle):
    """Float32 unit vectors, this angle apart, and a tangent at the second one."""
    basis = torch.linalg.qr(torch.randn(dim, 2, dtype=torch.float64))[0].T
    z = math.cos(angle) * basis[0] + math.sin(angle) * basis[1]
    tangent = -math.sin(angle) * basis[0] + math.cos(angle) * basis[1]
    return basis[0].float(), z.float(), tangent.float()


def dot(a, b):
    return mp.fsum(x * y for x, y in zip(exact(a), exact(b), strict=True))


def half_cosine(mu, z):
    """(1 + cos) / 2 of the angle between two vectors, whatever their lengths, and the cosine."""
    cosine = dot(mu, z) / mp.sqrt(dot(mu, mu) * dot(z, z))
    return (1 + cosine) / 2, cosine


def log_peak(kappa, dim):
    half = mp.mpf(dim - 1) / 2
    ratio = mp.loggamma(2 * half + kappa) - mp.loggamma(half + kappa)
    return ratio - half * mp.log(4 * mp.pi)


@spheres
@pytest.mark.parametrize("concentration", CONCENTRATIONS)
def test_power_spherical_is_its_formula(dim, concentration):
    """Value and gradients: at the mean direction, about it as draws are, at a right angle, and near
    the antipode.
    """
    spread = math.sqrt(dim / (dim + concentration))
    for angle in (0.0, 0.5 * spread, spread, 1.57, 1.58, 3.1):
        mu, z, tangent = pole_and_point(dim, angle)
        kappa = torch.tensor(concentration, requires_grad=True)
        k, half = exact(kappa.detach()), mp.mpf(dim - 1) / 2
        share, cosine = half_cosine(mu, z)
        if k * abs(mp.log(share)) > LARGEST / 10:
            continue  # not a number of float32
        point = z.clone().requires_grad_()
        log_p = PowerSpherical(mu, kappa, validate_args=False).log_prob(point)
        parts = [k * mp.log(share), log_peak(k, dim)]
        # float32's z is no unit vector: turning it by one rounding changes log p by as much.
        turned = mp.sqrt(max(1 - cosine**2, 0)) / (1 + cosine) + EPS
        assert_rounded(log_p, mp.fsum(parts), [*parts, k * turned])
        by_kappa, by_z = torch.autograd.grad(log_p, [kappa, point])
        slope = mp.digamma(2 * half + k) - mp.digamma(half + k)
        assert_rounded(by_kappa, mp.log(share) + slope, [mp.log(share), slope, turned])
        if angle:
            # Along the tangent, less what of it is no tangent to float32's z.
            along = dot(mu, tangent) - dot(z, tangent) * dot(mu, z) / dot(z, z)
            truth = k * along / (mp.sqrt(dot(mu, mu) * dot(z, z)) * (1 + cosine))
            assert_rounded((by_z * tangent).sum(), truth, [truth], roundings=64)


@spheres
@pytest.mark.parametrize("concentration", CONCENTRATIONS)
def test_power_spherical_entropy_kl_and_mean(dim, concentration):
    kappa = torch.tensor(concentration, requires_grad=True)
    mu = pole_and_point(dim, 0.0)[0]
    p, k, half = PowerSpherical(mu, kappa), exact(kappa.detach()), mp.mpf(dim - 1) / 2
    mean_log = mp.digamma(half + k) - mp.digamma(2 * half + k)
    entropy = -log_peak(k, dim) - k * mean_log
    area = mp.log(2) + (half + 0.5) * mp.log(mp.pi) - mp.loggamma(half + 0.5)
    terms = [log_peak(k, dim), k * mean_log]
    assert_rounded(p.entropy(), entropy, terms)
    kl = kl_divergence(p, HypersphericalUniform(mu))
    assert_rounded(kl, area - entropy, [*terms, area])
    (slope,) = torch.autograd.grad(kl, kappa)
    truth = k * (mp.polygamma(1, half + k) - mp.polygamma(1, 2 * half + k))
    first = mp.digamma(2 * half + k) - mp.digamma(half + k)
    assert_rounded(slope, truth, [first, mean_log, truth])
    length = k / (k + 2 * half)
    assert_rounded((p.mean * mu).sum(), length * dot(mu, mu), [length])


@pytest.mark.parametrize("dim", [2, 5, 50])
@pytest.mark.parametrize("concentration", [1e-30, 1.0, 1e3, 1e6, 1e10, 1e20])
def test_power_spherical_draws_and_their_gradients(dim, concentration):
    """E[1 - b] = beta / (2 beta + kappa) and its derivative, within five standard errors."""
    kappa = torch.full((20_000,), concentration, requires_grad=True)
    mu = torch.nn.functional.one_hot(torch.tensor(0), dim).float()
    away = 0.25 * (PowerSpherical(mu, kappa).rsample() - mu).square().sum(-1)
    (slopes,) = torch.autograd.grad(away.sum(), kappa)
    total = dim - 1 + concentration
    for found, truth in ((away, 0.5 * (dim - 1) / total), (slopes, -0.5 * (dim - 1) / total**2)):
        scaled = found.detach().double() / truth
        assert abs(scaled.mean() - 1) < 5 * scaled.std() / math.sqrt(len(scaled))


def test_the_largest_concentration_gives_draws_and_finite_gradients():
    kappa = torch.full((20_000,), LARGEST, requires_grad=True)
    z = PowerSpherical(torch.tensor([1.0, 0.0]), kappa).rsample()
    assert torch.autograd.grad(z.sum(), kappa)[0].isfinite().all()
    assert (z - torch.tensor([1.0, 0.0])).abs().max() < 1e-6
