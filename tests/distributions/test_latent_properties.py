"""Priors and posteriors of drawn kinds, sizes, batches and parameters are laws.

Each class has a strategy in ``helpers.latents``; :func:`test_every_class_is_drawn` fails if one has
none. What cannot be summed is held to six of its own Monte Carlo errors; examples are derandomised,
so a run is a plain yes or no.
"""

import math

import pytest
import torch
from helpers.latents import POSTERIORS, PRIORS, laws
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from pyrovae import posteriors, priors


def drawn_settings(max_examples):
    return settings(
        max_examples=max_examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


KINDS = [("prior", name) for name in PRIORS] + [("posterior", name) for name in POSTERIORS]
PATHWISE = [name for name in POSTERIORS if name != "Categorical"]
batches = st.lists(st.integers(1, 3), max_size=2).map(tuple)
each_kind = pytest.mark.parametrize(("kind", "name"), KINDS, ids=lambda value: value)


def test_every_class_is_drawn():
    assert set(PRIORS) == set(priors.__all__) - {"Prior"}
    assert set(POSTERIORS) == set(posteriors.__all__) - {"Posterior", "Delta"}


def blocks(law, z):
    """One-hot or simplex codes, ``(..., L, C)``."""
    part = law.part.posterior if isinstance(law.part, priors.Vamp) else law.part
    return z.unflatten(-1, part.block_shape)


def assert_in_support(law, z):
    assert z.isfinite().all()
    if law.space == "sphere":
        assert (z.norm(dim=-1) - 1).abs().max() < 1e-12
    elif law.space in ("one-hot", "simplex"):
        codes = blocks(law, z)
        assert (codes.sum(-1) - 1).abs().max() < 1e-9
        assert (codes >= 0).all()
        if law.space == "one-hot":
            assert ((codes == 0) | (codes == 1)).all()
    else:
        assert law.space == "real"


@each_kind
@drawn_settings(8)
@given(data=st.data())
def test_shapes_and_support(kind, name, data):
    law = data.draw(laws(kind, name, batches))
    p, shape = law.distribution, data.draw(batches)
    z = p.sample(shape)
    (dim,) = p.event_shape
    assert tuple(z.shape) == (*shape, *p.batch_shape, dim)
    assert_in_support(law, z)
    log_p = p.log_prob(z)
    assert log_p.shape == z.shape[:-1]
    assert log_p.isfinite().all()
    assert log_p.dtype == z.dtype == torch.float64


def width(z):
    """Half the interquartile range of each coordinate."""
    return ((z.quantile(0.75, 0) - z.quantile(0.25, 0)) / 2).clamp(min=1e-9)


def real_grid(z):
    """Nodes ``(n, D)`` and weights for one or two real dimensions, about draws z, out to 2,000 of
    their widths.
    """
    dim = z.shape[1]
    t = torch.linspace(-8.3, 8.3, 1601 if dim == 1 else 161, dtype=torch.float64)
    line, weight = t.sinh(), t.cosh() * (t[1] - t[0])
    nodes = torch.cartesian_prod(*[line] * dim).reshape(-1, dim) * width(z) + z.median(0).values
    return nodes, torch.cartesian_prod(*[weight] * dim).reshape(-1, dim).prod(-1) * width(z).prod()


def references(law, num):
    """Draws ``(num, D)`` of a normalised density r that covers the law, and log r."""
    z = law.distribution.sample((num,))
    if law.space == "real":
        # Tails heavier than those of df = 1.5. The other way round, E_p[r / p], spline flows have
        # rare huge weights.
        r = torch.distributions.StudentT(1.4, z.median(0).values, 1.5 * width(z))
        u = r.sample((num,))
        return u, r.log_prob(u).sum(-1)
    if law.space == "sphere":
        u = torch.nn.functional.normalize(torch.randn_like(z), dim=-1)
        return u, torch.full((num,), -log_area(z.shape[-1]), dtype=z.dtype)
    codes = blocks(law, z)
    # Between a Dirichlet that is steep at the corners as the law may be, and one that is flat.
    kinds = [
        torch.distributions.Dirichlet(torch.full(codes.shape[-1:], a, dtype=z.dtype))
        for a in (0.35, 1.0)
    ]
    u = torch.where(torch.rand(num, 1, 1) < 0.5, *(r.sample(codes.shape[:-1]) for r in kinds))
    log_r = torch.stack([r.log_prob(u).sum(-1) for r in kinds]).logsumexp(0) - math.log(2)
    return u.flatten(1), log_r


def log_area(dim):
    return math.log(2) + 0.5 * dim * math.log(math.pi) - math.lgamma(0.5 * dim)


@each_kind
@drawn_settings(8)
@given(data=st.data())
@torch.no_grad()
def test_adds_up_to_one(kind, name, data):
    """By quadrature on one or two reals, by enumeration, else E_r[p / r] = 1
    with a normalised r.
    """
    law = data.draw(laws(kind, name))
    p = law.distribution
    (dim,) = p.event_shape
    slow = type(p).__name__ in ("FlowDistribution", "ComponentMixture")  # at a grid's many nodes
    if law.space == "real" and (dim == 1 or (dim == 2 and not slow)):
        nodes, weights = real_grid(p.sample((1000,)))
        # The kinks of ReLU flows and of |z| cost the trapezoid rule O(h^2); df = 1.5 leaves 1e-4
        # beyond the grid.
        assert abs(weights @ p.log_prob(nodes).exp() - 1) < 2e-3
        return
    if law.space == "one-hot":
        part = law.part.posterior if isinstance(law.part, priors.Vamp) else law.part
        num, size = part.block_shape
        codes = torch.cartesian_prod(*[torch.arange(size)] * num).reshape(-1, num)
        nodes = torch.nn.functional.one_hot(codes, size).double().flatten(1)
        assert abs(p.log_prob(nodes).exp().sum() - 1) < 1e-12
        return
    u, log_r = references(law, 6_000)
    weights = (p.log_prob(u) - log_r).exp()
    standard_error = weights.std() / math.sqrt(len(u))
    assume(standard_error < 0.15)  # else this says little
    assert abs(weights.mean() - 1) < 6 * standard_error + 1e-9


@pytest.mark.parametrize("name", PATHWISE)
@drawn_settings(6)
@given(data=st.data(), precision=st.sampled_from([torch.float32, torch.float64]))
def test_gradients_through_draws_are_finite(name, data, precision):
    """Of z and of log q(z), in the encoder's outputs and in the part's own parameters."""
    law = data.draw(laws("posterior", name, batches))
    part = law.part.to(precision)
    outputs = law.outputs.to(precision).requires_grad_()
    q = part.distribution(outputs)
    z = q.rsample((2,))
    own = [p for n, p in part.named_parameters() if not n.startswith("encoder")]
    found = torch.autograd.grad(
        z.square().sum() + q.log_prob(z).sum(), [outputs, *own], allow_unused=True
    )
    assert found[0] is not None
    for gradient in found:
        assert gradient is None or gradient.isfinite().all()


def inner(outputs):
    """Off zero, where a direction jumps and ReLU has its kink."""
    return (outputs + 0.1).requires_grad_()


@each_kind
@drawn_settings(3)
@given(data=st.data())
def test_density_passes_gradcheck(kind, name, data):
    """In z and, for a posterior, in the encoder's outputs."""
    law = data.draw(laws(kind, name))
    z = law.distribution.sample().detach().clone()
    if law.space == "simplex":  # steep at the corners, where finite differences fail
        z = 0.5 * z + 0.5 / blocks(law, z).shape[-1]
    if law.space == "real":  # off the kink of |z|
        z = torch.where(z.abs() < 1e-3, z + 0.01, z)
    if law.space != "one-hot":
        assert gradcheck(law.distribution.log_prob, z.requires_grad_(), atol=1e-5, rtol=1e-3)
    if law.outputs is not None:
        fixed, outputs = z.detach(), inner(law.outputs)
        assert gradcheck(
            lambda o: law.part.distribution(o).log_prob(fixed), outputs, atol=1e-5, rtol=1e-3
        )


@pytest.mark.parametrize("name", PATHWISE)
@drawn_settings(3)
@given(data=st.data())
def test_draws_pass_gradcheck(name, data):
    """rsample at the same noise, in the encoder's outputs; where draws come of accepted proposals,
    only theirs.
    """
    law = data.draw(laws("posterior", name))
    if name in ("Mixture", "PowerSpherical"):
        return  # implicit gradients: their expectation is tested in test_latent_laws.py
    seed = data.draw(st.integers(0, 1000))

    def at_same_noise(outputs):
        torch.manual_seed(seed)
        return law.part.distribution(outputs).rsample()

    assert gradcheck(at_same_noise, inner(law.outputs), atol=1e-5, rtol=1e-3)
