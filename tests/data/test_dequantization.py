"""Dequantised levels: where they lie, that the bound is one, and who may ask for bits per
dimension.
"""

import math

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pyrovae import data
from pyrovae.distributions.beta import Beta

F64 = torch.float64


def test_each_level_fills_its_cell():
    k = torch.arange(5).repeat_interleave(20_000)
    y = data.dequantize(k.double() / 4, 5, seed=1)
    assert torch.equal((y * 5).floor().long(), k)
    inside = y * 5 - k
    # Mean and variance of a uniform variable, within five standard errors of 100,000 draws.
    assert abs(inside.mean() - 1 / 2) < 5 * math.sqrt(1 / 12 / 1e5)
    assert abs(inside.var() - 1 / 12) < 5 * math.sqrt(1 / 180 / 1e5)
    assert torch.equal(y, data.dequantize(k.double() / 4, 5, seed=1))
    assert not torch.equal(y, data.dequantize(k.double() / 4, 5, seed=2))


def test_single_precision_stays_below_one():
    noise = torch.full((1,), 1 - 2**-24)
    assert data.Dequantize(256).cells(torch.ones(1), noise) < 1


def test_the_density_bounds_the_probability_of_a_level():
    """Against the mass of each cell under Beta(2, 3), whose distribution
    function is a polynomial.
    """
    edges = torch.linspace(0, 1, 6, dtype=F64)
    mass = (6 * edges**2 - 8 * edges**3 + 3 * edges**4).diff()
    torch.manual_seed(0)
    x = (torch.arange(5, dtype=F64) / 4).expand(40_000, 5)
    y = data.Dequantize(5)(x)
    log_p = Beta(torch.tensor(2.0, dtype=F64), torch.tensor(3.0, dtype=F64)).log_prob(y) - math.log(
        5
    )
    # The expectation by the midpoint rule, which is below the logarithm of the mass by Jensen's
    # inequality.
    grid = (torch.arange(5)[:, None] + (torch.arange(100_000, dtype=F64) + 0.5) / 100_000) / 5
    bound = (12 * grid * (1 - grid) ** 2).log().mean(1) - math.log(5)
    assert (bound < mass.log()).all()
    assert ((log_p.mean(0) - bound).abs() < 5 * log_p.std(0) / 200).all()
    # The mean of the density itself is the mass: five standard errors.
    p = log_p.exp()
    assert ((p.mean(0) - mass).abs() < 5 * p.std(0) / 200).all()


def test_captured_and_with_labels():
    transform = data.Dequantize(4)
    assert transform.capturable
    y = torch.arange(3)
    noisy, same = transform(torch.ones(3, 2), y)
    assert same is y
    graph = make_fx(lambda x: transform(x))(torch.ones(3, 2))
    assert not torch.equal(graph(torch.ones(3, 2)), graph(torch.ones(3, 2)))
    assert ((noisy >= 0.75) & (noisy < 1)).all()


def test_splits_know_whether_they_hold_levels():
    levels = data.load("digits")
    assert (levels.holds_levels, levels.data_scale) == (True, 1.0)
    real = levels.dequantize()
    assert (real.holds_levels, real.data_scale, real.transform.num_levels) == (False, 1 / 17, 17)
    assert torch.equal((real.test * 17).floor(), levels.test * 16)
    assert real.take(10).dequantized
    bits = levels.binarize()
    assert not bits.holds_levels
    for splits in (real, bits, data.split(torch.randn(20, 2))):
        with pytest.raises(ValueError, match="does not hold grey levels"):
            splits.dequantize()


def test_values_that_are_no_levels_are_refused():
    with pytest.raises(ValueError, match=r"levels 0, 1/254.*found 0.396078.*256 for 8-bit"):
        data.dequantize(torch.tensor([1 / 255, 101 / 255]), 255)
    with pytest.raises(ValueError, match="found nan"):
        data.dequantize(torch.tensor([math.nan]), 256)
    with pytest.raises(ValueError, match="integer of 2 or more, found 1"):
        data.Dequantize(1)
