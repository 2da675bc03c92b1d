"""Mixtures of discretised logistics, alone and with coupled colour channels."""

import itertools
import math

import pytest
import torch
from torch.testing import assert_close

from pyrovae.distributions import discretized, levels

F64 = torch.float64


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def theta(a):
    return (0.7 * a).exp()


def logistic_mass(k, loc, scale, num_levels):
    """The defining difference of two sigmoids, level by level."""
    low = -math.inf if k == 0 else ((k - 0.5) / (num_levels - 1) - loc) / scale
    high = math.inf if k == num_levels - 1 else ((k + 0.5) / (num_levels - 1) - loc) / scale
    sigmoid = lambda t: 1 / (1 + math.exp(-t)) if t > -700 else 0.0  # noqa: E731
    return sigmoid(high) - sigmoid(low)


def mixture(levels_=3, components=2, pixels=(2,), seed=0, coupled=True):
    channels = (3,) if coupled else ()
    return discretized.DiscretizedLogisticMixture(
        normal(1, components, *pixels, seed=seed),
        0.5 + 0.4 * normal(1, components, *channels, *pixels, seed=seed + 1),
        0.3 * theta(normal(1, components, *channels, *pixels, seed=seed + 2)),
        normal(1, components, 3, *pixels, seed=seed + 3).tanh() if coupled else None,
        num_levels=levels_,
        num_pixel_dims=len(pixels),
    )


@pytest.mark.parametrize("coupled", [True, False])
def test_mixture_adds_up_to_one(coupled):
    d = mixture(pixels=(2,), coupled=coupled)
    elements = 6 if coupled else 2
    every = torch.tensor(list(itertools.product(range(3), repeat=elements)), dtype=F64) / 2
    x = every.reshape(-1, *d.event_shape)
    assert_close(d.log_prob(x).exp().sum(), torch.ones((), dtype=F64))
    torch.manual_seed(0)
    code = (
        d.sample((40_000,)).reshape(40_000, -1) * 2 @ (3.0 ** torch.arange(elements, dtype=F64))
    ).long()
    found = torch.bincount(code, minlength=3**elements) / 40_000
    index = (every * 2 @ (3.0 ** torch.arange(elements, dtype=F64))).long()
    p = d.log_prob(x).exp()
    # Five standard errors of each frequency, over at most 729 outcomes, and one count's worth for
    # the rare ones.
    assert ((found[index] - p).abs() < 5 * (p * (1 - p) / 40_000).sqrt() + 1 / 40_000).all()


def test_mixture_is_the_formula_of_the_paper():
    """A colour pixel by a loop over components in plain Python."""
    d = mixture(levels_=5, components=3, pixels=(1,), seed=7)
    weight = d.logits[0, :, 0].softmax(0)
    for k in [(0, 0, 0), (4, 4, 4), (1, 3, 2), (0, 4, 1)]:
        r, g, _ = (v / 4 - 0.5 for v in k)
        total = 0.0
        for m in range(3):
            a, b, c = d.coupling[0, m, :, 0].tolist()
            red, green, blue = d.loc[0, m, :, 0].tolist()
            means = (red, green + a * r, blue + b * r + c * g)
            total += weight[m].item() * math.prod(
                logistic_mass(k[i], means[i], d.scale[0, m, i, 0].item(), 5) for i in range(3)
            )
        x = torch.tensor(k, dtype=F64).reshape(1, 3, 1) / 4
        assert_close(d.log_prob(x).exp().item(), total, rtol=1e-10, atol=0)


def test_mixture_mean_is_near_the_draws():
    """Without coupling within half a level of the exact mean; with it, within a level of the draws'
    at 256.
    """
    d = mixture(levels_=64, components=3, pixels=(4,), coupled=False)
    each = levels.from_levels(torch.arange(64, dtype=F64), 64)
    single = [
        discretized.DiscretizedLogistic(d.loc[0, m], d.scale[0, m], 64)
        .log_prob(each[:, None])
        .exp()
        for m in range(3)
    ]
    exact = sum(
        w * (each[:, None] * p).sum(0) for w, p in zip(d.logits[0].softmax(0), single, strict=True)
    )
    assert_close(d.mean[0], exact, atol=0.5 / 63, rtol=0)


def test_mixture_gradients_shapes_and_expansion():
    parameters = [normal(2, 2, 2, 2), normal(2, 2, 3, 2, 2, seed=1), normal(2, 2, 3, 2, 2, seed=2)]
    parameters.append(normal(2, 2, 3, 2, 2, seed=3))
    leaves = [p.requires_grad_() for p in parameters]

    def build(logits, loc, raw, slopes):
        return discretized.DiscretizedLogisticMixture(
            logits, loc, theta(raw), slopes.tanh(), num_levels=8
        )

    x = build(*leaves).sample()
    assert x.shape == (2, 3, 2, 2)
    assert torch.autograd.gradcheck(lambda *p: build(*p).log_prob(x), leaves)
    big = build(*leaves).expand((5, 2))
    assert big.sample((4,)).shape == (4, 5, 2, 3, 2, 2)
    assert big.mean.shape == (5, 2, 3, 2, 2)
    assert_close(big.log_prob(x), build(*leaves).log_prob(x).expand(5, 2))


def test_mixture_refuses_wrong_shapes():
    with pytest.raises(ValueError, match=r"Expected loc to end in \(3, 2, 2\)"):
        discretized.DiscretizedLogisticMixture(
            normal(1, 2, 2, 2), normal(1, 2, 2, 2), normal(1, 2, 2, 2).exp(), normal(1, 2, 3, 2, 2)
        )
