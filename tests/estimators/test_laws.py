"""Laws of the bounds as functions of the log-weights alone, over many shapes and scales."""

import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from pyrovae import estimators
from pyrovae.estimators import CIWAE, ELBO, IWAE, MIWAE, TVO, BetaTC, Estimator, Jackknife, Renyi
from pyrovae.particles import Particles

KINDS = [
    kind
    for name in estimators.__all__
    if inspect.isclass(kind := getattr(estimators, name))
    and issubclass(kind, Estimator)
    and not inspect.isabstract(kind)
    and kind is not BetaTC  # a function of distributions, not of weights
]


def particles(log_w):
    """Particles without latents, whose log-weights are all in the likelihood."""
    num_particles, num_data = log_w.shape
    return Particles(
        latents={},
        log_likelihood=log_w,
        num_particles=num_particles,
        num_data=num_data,
        scale=1.0,
        likelihood_scaled=False,
    )


def bound(estimator, log_w):
    with torch.no_grad():
        return estimator.terms(particles(log_w)).bound


def made(kind, num):
    """The estimator with ``num`` draws in all."""
    if issubclass(kind, estimators.MIWAE | estimators.PIWAE):
        return kind(2).with_draws(num)
    if issubclass(kind, estimators.FreeBits | estimators.Capacity):
        return kind(ELBO(num))
    return kind(num_particles=num)


@st.composite
def log_weights(draw, even=False):
    num = 2 * draw(st.integers(1, 8)) if even else draw(st.integers(2, 16))
    shape = num, draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    scale = draw(st.sampled_from([1e-3, 1.0, 30.0]))
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64) - draw(
        st.sampled_from([0.0, 500.0])
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(deadline=None, max_examples=30)
@given(log_w=log_weights(even=True), shift=st.sampled_from([-2_000.0, -1.0, 700.0]))
def test_scaled_weights_shift_the_bound(kind, log_w, shift):
    """p(x, z) times a constant is log p(x) plus its log; nothing overflows on the way."""
    estimator = made(kind, len(log_w))
    found = bound(estimator, log_w)
    assert found.isfinite().all()
    # The jackknife adds and subtracts values of size K times log w.
    assert_close(bound(estimator, log_w + shift), found + shift, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize(
    "kind", [k for k in KINDS if k is not MIWAE], ids=lambda kind: kind.__name__
)
@settings(deadline=None, max_examples=30)
@given(log_w=log_weights(even=True), seed=st.integers(0, 2**32))
def test_order_of_particles_does_not_matter(kind, log_w, seed):
    order = torch.randperm(len(log_w), generator=torch.Generator().manual_seed(seed))
    estimator = made(kind, len(log_w))
    assert_close(bound(estimator, log_w[order]), bound(estimator, log_w), rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(log_w=log_weights(even=True))
def test_bounds_of_the_same_draws_are_ordered(log_w):
    num = len(log_w)
    rising = [
        Renyi(math.inf, num),
        Renyi(2.0, num),
        ELBO(num),
        MIWAE(2).with_draws(num),
        IWAE(num),
        Renyi(-1.0, num),
        Renyi(-math.inf, num),
    ]
    bounds = torch.stack([bound(estimator, log_w) for estimator in rising])
    assert (bounds.diff(dim=0) > -1e-9).all()
    for inner in (CIWAE(0.3, num), Renyi(0.5, num), TVO(num)):
        assert (bound(inner, log_w) > bound(ELBO(num), log_w) - 1e-9).all()
        assert (bound(inner, log_w) < bound(IWAE(num), log_w) + 1e-9).all()
    assert (bound(TVO(num, upper=True), log_w) > bound(IWAE(num), log_w) - 1e-9).all()
    assert (bound(Jackknife(1, num), log_w) > bound(IWAE(num), log_w) - 1e-8).all()
