"""Networks in bfloat16: what is rounded, and whether the error that is reported is the error that
is made.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pyrovae import VAE, ImportanceSampling, likelihoods, log_marginal, nets
from pyrovae.compilation.capture import capture
from pyrovae.nets.precision import Bfloat16Networks


def test_layers_alone_are_rounded():
    torch.manual_seed(0)
    x, layer = torch.randn(4, 8), nn.Linear(8, 3)
    image, conv = torch.randn(2, 1, 5, 5), nn.Conv2d(1, 2, 3)
    expected = F.linear(x.bfloat16(), layer.weight.bfloat16(), layer.bias.bfloat16()).float()
    convolved = F.conv2d(image.bfloat16(), conv.weight.bfloat16(), conv.bias.bfloat16()).float()
    product = x @ layer.weight.T
    with torch.no_grad(), Bfloat16Networks():
        assert torch.equal(layer(x), expected)
        assert torch.equal(conv(image), convolved)
        assert torch.equal(x @ layer.weight.T, product)
        graph = capture(lambda x: (layer(x),), (x,))
    assert torch.equal(graph(x)[0], expected)
    assert not torch.equal(layer(x), expected)


@pytest.mark.parametrize("net", [nets.MLP(32), nets.Conv(4)], ids=["dense", "convolutional"])
def test_the_reported_error_is_the_error(net):
    torch.manual_seed(0)
    vae = VAE((8, 8), 3, encoder=net, decoder=net)
    x = torch.bernoulli(torch.full((6, 8, 8), 0.4))
    full, rounded = (
        log_marginal(
            vae.model,
            vae.guide,
            x,
            method=ImportanceSampling(100, networks=networks, compile=False),
        )
        for networks in ("full", "bfloat16")
    )
    made = rounded.log_marginal.values - full.log_marginal.values
    reported = rounded.rounding_error.values
    # The same 100 draws, but that the encoder's own rounding moves them a little.
    assert np.abs(made).max() > 1e-4
    np.testing.assert_allclose(reported, made, atol=0.02)
    assert "bfloat16   adds" in repr(rounded)
    assert "rounding_error" not in full.dataset
    assert rounded.settings["networks"] == "bfloat16"


def test_draws_and_densities_keep_their_precision():
    vae = VAE(6, 2, likelihood=likelihoods.Gaussian()).double()
    x = torch.randn(4, 6, dtype=torch.float64)
    found = log_marginal(
        vae.model, vae.guide, x, method=ImportanceSampling(50, networks="bfloat16")
    )
    assert found.log_marginal.dtype == np.float64
    assert np.abs(found.rounding_error.values).max() < 0.5


def test_unknown_networks_are_refused():
    with pytest.raises(ValueError, match="networks must be 'full' or 'bfloat16', found 'float8'"):
        ImportanceSampling(networks="float8")
