"""Weights: against definitions written out, SciPy-like brute force, and ArviZ."""

import itertools
import math

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from pyrovae import weights
from pyrovae.weights import RunningWeights


def draw(
    num: int, num_data: int = 6, spread: float = 1.0, shift: float = -90.0, seed: int = 0
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return shift + spread * torch.randn(num, num_data, generator=generator, dtype=torch.float64)


def leave_out(log_w: torch.Tensor, order: int) -> torch.Tensor:
    """The jackknife as its definition reads: every way to leave j particles out."""
    num = len(log_w)
    total = torch.zeros_like(log_w[0])
    for j in range(order + 1):
        means = [
            weights.log_mean_exp(log_w[[k for k in range(num) if k not in gone]])
            for gone in itertools.combinations(range(num), j)
        ]
        factor = (-1) ** j * (num - j) ** order / (math.factorial(order - j) * math.factorial(j))
        total = total + factor * torch.stack(means).mean(0)
    return total


def test_definitions_on_small_numbers():
    w = torch.tensor([[1.0, 2.0], [3.0, 2.0], [2.0, 2.0]], dtype=torch.float64)
    assert_close(weights.log_mean_exp(w.log()), torch.tensor([2.0, 2.0], dtype=torch.float64).log())
    assert_close(weights.ess(w.log()), torch.tensor([36 / 14, 3.0], dtype=torch.float64))
    # Sample variance 1 over 3 particles, relative to the mean 2.
    expected = torch.tensor([math.sqrt(1 / 3) / 2, 0.0], dtype=torch.float64)
    assert_close(weights.standard_error(w.log()), expected)


@pytest.mark.parametrize("shift", [0.0, -1e4, 1e4])
def test_no_overflow(shift):
    log_w = draw(100, shift=shift)
    assert_close(
        weights.log_mean_exp(log_w) - shift,
        draw(100, shift=0.0).exp().mean(0).log(),
        atol=1e-10,
        rtol=0,
    )


def test_leave_one_out_is_what_it_says():
    log_w = draw(7, spread=3.0)
    for k in range(7):
        rest = torch.cat([log_w[:k], log_w[k + 1 :]])
        assert_close(weights.leave_one_out(log_w)[k], rest.logsumexp(0))


@given(
    cuts=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    spread=st.sampled_from([0.0, 0.3, 2.0, 8.0]),
    seed=st.integers(0, 100),
)
@settings(max_examples=40, deadline=None)
def test_pieces_give_what_all_weights_at_once_give(cuts, spread, seed):
    log_w = draw(sum(cuts), spread=spread, seed=seed)
    running = RunningWeights(6, len(log_w))
    for piece in log_w.split(cuts):
        running.update(piece)
    assert_close(running.log_mean_exp, weights.log_mean_exp(log_w))
    assert_close(running.ess, weights.ess(log_w))
    assert_close(running.standard_error, weights.standard_error(log_w), atol=1e-12, rtol=1e-9)
    assert_close(running.pareto_tail()[0], weights.pareto_k(log_w))


def test_tail_is_kept_over_many_pieces():
    log_w = draw(3000, spread=2.0)
    running = RunningWeights(6, 3000)
    for piece in log_w.split(17):
        running.update(piece)
        assert sum(part.shape[0] for part in running._largest) < 5 * running.keep + 17
    assert running.keep == weights.tail_size(3000) + 1
    assert_close(running.largest, log_w.topk(running.keep, dim=0).values)
    assert_close(running.pareto_tail()[0], weights.pareto_k(log_w))


def test_some_of_the_data_may_get_more():
    log_w = draw(500, spread=2.0)
    running = RunningWeights(6, 500)
    running.update(log_w[:100])
    some = torch.tensor([1, 4])
    part = running.select(some)
    part.update(log_w[100:, some])
    running.replace(some, part)
    assert running.count.tolist() == [100, 500, 100, 100, 500, 100]
    for column, num in enumerate(running.count.tolist()):
        one = log_w[:num, column : column + 1]
        assert_close(running.log_mean_exp[column], weights.log_mean_exp(one)[0])
        assert_close(running.pareto_tail()[0][column], weights.pareto_k(one)[0])
        assert_close(running.jackknife(1)[column], weights.jackknife(one, 1)[0])


@pytest.mark.parametrize("num", [25, 100, 225, 226, 250, 1000])
def test_pareto_k_is_that_of_arviz(num):
    log_w = draw(num, 20) * torch.linspace(0.1, 3.0, 20, dtype=torch.float64)
    _, expected = array_stats.psislw(-log_w.numpy(), axis=0)
    np.testing.assert_allclose(weights.pareto_k(log_w).numpy(), expected, atol=1e-12)


def test_pareto_k_without_a_tail_or_without_enough_weights():
    assert weights.pareto_k(torch.zeros(1000, 2)).tolist() == [-math.inf] * 2
    assert weights.pareto_k(draw(24, 2)).tolist() == [math.inf] * 2
    few = torch.zeros(1000, 1, dtype=torch.float64)
    few[:3] = (
        10.0  # three of a thousand weights outweigh all others: nothing can be said of their kind
    )
    assert weights.pareto_k(few).tolist() == [math.inf]


@pytest.mark.parametrize("alpha", [1.0, 2.0, 4.0])
def test_pareto_k_finds_the_shape_of_pareto_weights(alpha):
    generator = torch.Generator().manual_seed(1)
    log_w = torch.empty(20_000, 30, dtype=torch.float64).exponential_(alpha, generator=generator)
    # The tail holds 424 weights, so k has an error of (1 + k) / sqrt(424) a datum and sqrt(30) less
    # in the mean.
    tolerance = (
        5 * (1 + 1 / alpha) / math.sqrt(424 * 30) + 0.01
    )  # and the shrinkage of 10 in 434 towards 1/2
    assert weights.pareto_k(log_w).mean().item() == pytest.approx(1 / alpha, abs=tolerance)


@pytest.mark.parametrize("alpha", [0.5, 0.8])
def test_unseen_is_the_rise_of_the_mean_along_a_pareto_tail(alpha):
    """Weights at the quantiles of P(w > t) = t^-alpha, whose mean up to any quantile is in closed
    form.
    """
    num = 20_000
    rest = (torch.arange(num, dtype=torch.float64) + 0.5) / num
    log_w = -rest.log()[:, None] / alpha
    k, unseen = weights.pareto_tail(log_w)
    # Integral of r^(-1/alpha) over r from 1 / (10,000 K) to 1.
    power = 1 - 1 / alpha
    mean = (1 - (1 / (10_000 * num)) ** power) / power
    assert k.item() == pytest.approx(1 / alpha, abs=0.06)  # shrunk by 10 parts in 434 towards 1/2
    # An error of 0.06 in k is one of up to 0.06 log(10,000) = 0.55 in the extrapolation, of 2
    # and 9.
    rise = math.log(mean) - weights.log_mean_exp(log_w).item()
    assert unseen.item() == pytest.approx(rise, rel=0.2)


@pytest.mark.parametrize("num", [3, 10, 64, 65, 90])
@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("order", [1, 2])
def test_jackknife_is_its_definition(num, spread, order):
    log_w = draw(num, 3, spread)
    # Order 2 multiplies averages of size 90 by K^2.
    assert_close(
        weights.jackknife(log_w, order), leave_out(log_w, order), atol=num**order * 1e-12, rtol=0
    )


def test_jackknife_series_holds_where_most_weights_enter_by_it():
    log_w = draw(4000, 20, 1.5)
    num = len(log_w)
    means = (weights.leave_one_out(log_w) - math.log(num - 1)).mean(0)
    expected = num * weights.log_mean_exp(log_w) - (num - 1) * means
    assert_close(weights.jackknife(log_w), expected, atol=1e-8, rtol=0)


def test_jackknife_lowers_the_bias():
    """Log-normal weights of mean 1 and K = 40: bias -(e^s^2 - 1)/(2K) before, orders less after."""
    spread, num, runs = 0.8, 40, 40_000
    log_w = draw(num, runs, spread, shift=-(spread**2) / 2, seed=5)
    plain = weights.log_mean_exp(log_w).mean().item()
    error = weights.log_mean_exp(log_w).std().item() / math.sqrt(runs)
    assert plain == pytest.approx(-(math.exp(spread**2) - 1) / (2 * num), abs=0.002 + 4 * error)
    for order in (1, 2):
        # What is left at order 1 is of size 1/K^2 times moments; the Monte Carlo error of the mean
        # dominates.
        assert abs(weights.jackknife(log_w, order).mean().item()) < 0.25 * abs(plain) + 4 * error


def test_jackknife_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="order 1 or 2"):
        weights.jackknife(draw(10), 3)
    assert weights.jackknife(draw(1)).isnan().all()
    assert weights.jackknife(draw(2), 2).isnan().all()


def test_zero_weights():
    log_w = torch.full((30, 2), -math.inf, dtype=torch.float64)
    log_w[:15, 1] = 0.0
    running = RunningWeights(2, 30)
    for piece in log_w.split(10):
        running.update(piece)
    assert running.log_mean_exp.tolist() == [-math.inf, pytest.approx(math.log(0.5))]
    assert running.ess.tolist() == [0.0, pytest.approx(15.0)]
    assert running.standard_error[0] == math.inf


def test_every_eighth_weight():
    """The batches of a run do not depend on the pieces that it came in."""
    log_w = draw(61, 3)
    running = RunningWeights(3, 61)
    for piece in log_w.split([5, 8, 30, 18]):
        running.update(piece)
    expected = torch.stack([weights.log_mean_exp(log_w[g :: weights.BATCHES]) for g in range(8)], 1)
    assert_close(running.batch_log_mean_exp, expected)
    assert_close(running.log_weight_variance, log_w.var(0))


def test_degrees_of_freedom_are_satterthwaites():
    """2K / (kurtosis - 1), never above K - 1; weights of one heavy value have hardly any."""
    log_w = draw(4000, 3, spread=1.0, shift=0.0)
    w = log_w.exp()
    centred = w - w.mean(0)
    kurtosis = centred.pow(4).mean(0) / centred.square().mean(0) ** 2
    running = RunningWeights(3, 4000)
    running.update(log_w)
    assert_close(running.degrees_of_freedom, 8000 / (kurtosis - 1))
    single = torch.zeros(1000, 1, dtype=torch.float64)
    single[0] = 20.0
    running = RunningWeights(1, 1000)
    running.update(single)
    assert 1 <= running.degrees_of_freedom.item() < 3
    running = RunningWeights(1, 10)
    running.update(torch.zeros(10, 1, dtype=torch.float64))
    assert running.degrees_of_freedom.item() == 9  # K - 1


@pytest.mark.parametrize("margin", [0.0, 2.0])
def test_unseen_grows_with_margin_and_horizon(margin):
    log_w = draw(1000, 20, spread=1.5)
    near, far = (weights.pareto_tail(log_w, margin=margin, horizon=h)[1] for h in (10, 1000))
    assert (far >= near).all()
    assert (
        weights.pareto_tail(log_w, margin=margin + 1)[1]
        >= weights.pareto_tail(log_w, margin=margin)[1]
    ).all()


def test_zero_weights_have_no_variance_of_their_logs():
    log_w = torch.zeros(30, 2, dtype=torch.float64)
    log_w[::3, 1] = -math.inf
    running = RunningWeights(2, 30)
    for piece in log_w.split(7):
        running.update(piece)
    assert running.log_weight_variance.tolist() == [0.0, math.inf]
