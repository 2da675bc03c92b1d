"""The joint Bernoulli: one number by two routes."""

import pyro.distributions as dist
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

from pyrovae.distributions.bernoulli import JointBernoulli, _ByProducts


@pytest.mark.parametrize("size", [1, 15, 16, 17, 100, 784, 1024, 1025, 3072])
def test_products_give_the_log_probability(size):
    generator = torch.Generator().manual_seed(size)
    logits = 20 * torch.randn(3, 2, size, generator=generator, dtype=torch.float64)
    value = torch.bernoulli(torch.full((2, size), 0.4, dtype=torch.float64), generator=generator)
    expected = dist.Bernoulli(logits=logits).log_prob(value).sum(-1)
    assert_close(_ByProducts.apply(logits, value), expected, rtol=1e-12, atol=1e-10)


def test_extremes_in_single_precision():
    logits = torch.tensor([[0.0] * 1024, [80.0] * 1024, [-80.0] * 1024])
    value = torch.ones(1024)
    found = _ByProducts.apply(logits, value)
    # Products of 64 twos do not overflow; a certain one costs nothing.
    assert_close(found, torch.tensor([-1024 * 0.6931472, 0.0, -1024 * 80.0]))


@pytest.mark.parametrize("shape", [(2, 5), (3, 2, 5)], ids=["same", "broadcast"])
def test_gradients_of_first_and_second_order(shape):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()
    value = torch.rand(2, 5, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(_ByProducts.apply, (logits, value))
    assert torch.autograd.gradgradcheck(_ByProducts.apply, (logits, value))


def test_captures_take_the_products_and_eager_calls_do_not():
    logits, value = torch.randn(4, 5, 6, 7), torch.ones(5, 6, 7)

    def score(logits, value):
        return JointBernoulli(dist.Bernoulli(logits=logits, validate_args=False), 2).log_prob(value)

    def score_and_gradient(logits, value):
        with torch.enable_grad():
            logits = logits.requires_grad_()
            found = score(logits, value)
            return found, torch.autograd.grad(found.sum(), logits)[0]

    expected = dist.Bernoulli(logits=logits).to_event(2).log_prob(value)
    assert torch.equal(score(logits, value), expected)
    graph = make_fx(score_and_gradient)(logits, value)
    assert any("prod" in str(node.target) for node in graph.graph.nodes)
    found, gradient = graph(logits, value)
    assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert_close(gradient, value - logits.sigmoid())


def test_expands_under_plates():
    base = JointBernoulli(dist.Bernoulli(logits=torch.zeros(5, 6, 7)), 2)
    wide = base.expand((3, 5))
    assert isinstance(wide, JointBernoulli)
    assert wide.log_prob(torch.ones(5, 6, 7)).shape == (3, 5)
