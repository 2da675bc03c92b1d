"""Products by oneDNN are the same products, and which ones go there is a rule of the shapes."""

import pytest
import torch
from torch.nn import functional as F

from pyrovae.compilation import capture
from pyrovae.compilation.products import FEWEST_MULTIPLICATIONS, _available, _rewrite

COLUMNS = FEWEST_MULTIPLICATIONS // 2**16

LAYOUTS = {
    "plain": lambda a, b: (a, b),
    "weight transposed": lambda a, b: (a, b.t().contiguous().t()),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_products_are_the_same(layout):
    if not _available():
        pytest.skip("this torch has no oneDNN")
    generator = torch.Generator().manual_seed(0)
    a, b = layout(
        torch.randn(512, 160, generator=generator), torch.randn(160, 112, generator=generator)
    )
    bias = torch.randn(112, generator=generator)
    graph = capture(lambda a, b, bias: (a @ b, torch.addmm(bias, a, b)), (a, b, bias))
    assert _rewrite(graph.module) == 2
    exact = a.double() @ b.double()
    # 160 products of unit variance in float32: rounding is near sqrt(160) * 6e-8 * 13.
    torch.testing.assert_close(graph(a, b, bias)[0].double(), exact, rtol=0, atol=1e-4)
    torch.testing.assert_close(graph(a, b, bias)[1].double(), exact + bias, rtol=0, atol=1e-4)


def test_only_large_float32_products_of_a_batch_are_changed():
    if not _available():
        pytest.skip("this torch has no oneDNN")

    def changed(a, b):
        return _rewrite(capture(lambda a, b: (a @ b,), (a, b)).module)

    batch, weight = torch.ones(256, 256), torch.ones(256, COLUMNS)
    assert changed(batch, weight) == 1
    assert changed(batch[:-1], weight) == 0
    assert changed(batch.double(), weight.double()) == 0
    assert changed(batch.t(), weight) == 0  # a weight's gradient


def test_a_relu_that_alone_reads_a_product_is_part_of_it():
    if not _available():
        pytest.skip("this torch has no oneDNN")
    x, weight = torch.randn(256, 256), torch.randn(COLUMNS, 256) / 16  # sums near 1
    bias = torch.randn(COLUMNS)

    def layers(x, weight, bias):
        alone = F.linear(x, weight, bias).relu()
        twice = F.linear(x + 1, weight, bias)
        return alone, twice.relu(), twice

    graph = capture(layers, (x, weight, bias))
    expected = graph(x, weight, bias)
    assert _rewrite(graph.module) == 2
    graph.module.graph.lint()
    left = [node for node in graph.module.graph.nodes if node.target is torch.ops.aten.relu.default]
    assert len(left) == 1
    torch.testing.assert_close(graph(x, weight, bias), expected)
