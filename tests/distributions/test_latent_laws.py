"""Every prior and every posterior is a law: it adds up to one, and its draws and gradients are
those of its density.

A new variant needs a row here, or :func:`test_every_law_has_a_row` fails. Sums are by quadrature
(an angular grid on the sphere, enumeration for one-hot codes), Monte Carlo is held to five of its
own standard errors.
"""

import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

from pyrovae import nets, posteriors, priors

SHAPE = (3,)
SMOOTH, KINKED = (
    1e-7,
    5e-4,
)  # the trapezoid rule's error: below rounding, or O(h^2) at the kinks of ReLU and |z|

# The part, its space, latent dimension, and the error of quadrature.
PRIORS = {
    "StandardNormal": (priors.StandardNormal(), "real", 2, SMOOTH),
    "GaussianMixture": (priors.GaussianMixture(num_components=3), "real", 2, SMOOTH),
    "Laplace": (priors.Laplace(scale=0.7), "real", 2, KINKED),
    "StudentT": (priors.StudentT(df=5.0, scale=0.8), "real", 2, SMOOTH),
    "StudentT-1d": (priors.StudentT(df=4.0), "real", 1, SMOOTH),
    "Laplace-1d": (priors.Laplace(), "real", 1, KINKED),
    "GaussianMixture-1d": (priors.GaussianMixture(num_components=4, spread=2.0), "real", 1, SMOOTH),
    "Flow": (priors.Flow(num_transforms=2, hidden=(8,)), "real", 2, KINKED),
    "Flow-1d": (
        priors.Flow(num_transforms=2, hidden=(8,), transform="spline", bins=4),
        "real",
        1,
        KINKED,
    ),
    "Flow-coupling": (priors.Flow(num_transforms=2, hidden=(8,), coupling=True), "real", 2, KINKED),
    "Flow-spline": (
        priors.Flow(num_transforms=2, hidden=(8,), transform="spline", bins=3),
        "real",
        2,
        KINKED,
    ),
    "Vamp-DiagonalNormal": (priors.Vamp(num_components=3), "real", 2, SMOOTH),
    "Vamp-DiagonalNormal-1d": (priors.Vamp(num_components=3), "real", 1, SMOOTH),
    "Vamp-FullRankNormal": (priors.Vamp(num_components=3), "real", 2, SMOOTH),
    "Vamp-PowerSpherical": (priors.Vamp(num_components=3), "sphere", 3, KINKED),
    "Vamp-Categorical": (priors.Vamp(num_components=3), "one-hot", 3, SMOOTH),
    "Exemplar-DiagonalNormal": (priors.Exemplar(scale=0.7), "real", 2, SMOOTH),
    "Exemplar-DiagonalNormal-1d": (priors.Exemplar(scale=0.7), "real", 1, SMOOTH),
    "HypersphericalUniform": (priors.HypersphericalUniform(), "sphere", 3, SMOOTH),
    "HypersphericalUniform-circle": (priors.HypersphericalUniform(), "sphere", 2, SMOOTH),
    "Categorical": (priors.Categorical(num_categories=3, learned=True), "one-hot", 6, SMOOTH),
    "RelaxedCategorical": (
        priors.RelaxedCategorical(num_categories=3, learned=True),
        "simplex",
        3,
        SMOOTH,
    ),
}
POSTERIORS = {
    "DiagonalNormal": (posteriors.DiagonalNormal(), "real", 2, SMOOTH),
    "DiagonalNormal-exp": (posteriors.DiagonalNormal(scale="exp"), "real", 1, SMOOTH),
    "FullRankNormal": (posteriors.FullRankNormal(), "real", 2, SMOOTH),
    "LowRankNormal": (posteriors.LowRankNormal(rank=1), "real", 2, SMOOTH),
    "Flow": (posteriors.Flow(num_transforms=2, hidden=(8,), context=3), "real", 2, KINKED),
    "Flow-1d": (posteriors.Flow(num_transforms=2, hidden=(8,), context=3), "real", 1, SMOOTH),
    "Flow-spline": (
        posteriors.Flow(num_transforms=1, hidden=(8,), context=3, transform="spline", bins=3),
        "real",
        2,
        KINKED,
    ),
    "Flow-coupling": (
        posteriors.Flow(num_transforms=2, hidden=(8,), context=3, coupling=True),
        "real",
        2,
        KINKED,
    ),
    "Mixture": (posteriors.Mixture(num_components=3), "real", 2, SMOOTH),
    "Mixture-1d": (posteriors.Mixture(num_components=3), "real", 1, SMOOTH),
    "PowerSpherical": (posteriors.PowerSpherical(), "sphere", 3, KINKED),
    "PowerSpherical-circle": (posteriors.PowerSpherical(), "sphere", 2, KINKED),
    "Categorical": (posteriors.Categorical(num_categories=3), "one-hot", 6, SMOOTH),
    "RelaxedCategorical": (posteriors.RelaxedCategorical(num_categories=2), "simplex", 4, SMOOTH),
    "RelaxedCategorical-3": (posteriors.RelaxedCategorical(num_categories=3), "simplex", 3, SMOOTH),
}
ALL = [("prior", name) for name in PRIORS] + [("posterior", name) for name in POSTERIORS]
LINES = [
    (k, n) for k, n in ALL if {"prior": PRIORS, "posterior": POSTERIORS}[k][n][1:3] == ("real", 1)
]
PATHWISE = [name for name, row in POSTERIORS.items() if row[1] != "one-hot"]


@pytest.fixture(autouse=True)
def exact():
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def bound_posterior(part, dim):
    """Sized, with parameters away from where they start."""
    part = part.redeclare().bind(latent_dim=dim, data_shape=SHAPE, encoder=nets.MLP(4))
    with torch.no_grad():
        for parameter in part.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return part


def outputs_of(part, *batch):
    outputs = 0.7 * torch.randn(*batch, part.output_size())
    if isinstance(part, posteriors.PowerSpherical):
        outputs[..., -1] += 3.0  # smooth enough at the antipode for a grid
    return outputs


def law(kind, name):
    """One distribution of empty batch shape, its space and the error of quadrature."""
    part, space, dim, error = {"prior": PRIORS, "posterior": POSTERIORS}[kind][name]
    if kind == "posterior":
        part = bound_posterior(part, dim)
        return part.distribution(outputs_of(part)), space, error
    posterior = None
    if isinstance(part, priors.Vamp | priors.Exemplar):
        posterior = bound_posterior(getattr(posteriors, name.split("-")[1])(), dim)
    part = part.redeclare().bind(latent_dim=dim, data_shape=SHAPE, posterior=posterior)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    if isinstance(part, priors.Exemplar):
        part.eval().initialize_from(torch.rand(4, *SHAPE))
    return part(), space, error


def grid(space, distribution):
    """Nodes ``(n, D)`` and weights ``(n,)``, for the measure of the space's densities."""
    (dim,) = distribution.event_shape
    if space == "real":
        t = torch.linspace(-6, 6, 401)
        z, weight = t.sinh(), t.cosh() * (t[1] - t[0])
        nodes = torch.stack(torch.meshgrid(*[z] * dim, indexing="ij"), -1).reshape(-1, dim)
        weights = (
            torch.stack(torch.meshgrid(*[weight] * dim, indexing="ij"), -1)
            .reshape(-1, dim)
            .prod(-1)
        )
        return nodes, weights
    if space == "sphere":
        angle = torch.arange(400) * (2 * math.pi / 400)
        circle = torch.stack([angle.cos(), angle.sin()], -1)
        if dim == 2:
            return circle, torch.full((400,), 2 * math.pi / 400)
        height = torch.linspace(-1, 1, 2001)[1:] - 0.0005  # area is uniform in height (Archimedes)
        ring = (1 - height.square()).sqrt()[:, None, None] * circle
        nodes = torch.cat([ring, height[:, None, None].expand(-1, 400, 1)], -1).reshape(-1, 3)
        return nodes, torch.full((len(nodes),), 0.001 * 2 * math.pi / 400)
    if space == "one-hot":
        size = 3
        codes = torch.cartesian_prod(*[torch.arange(size)] * (dim // size)).reshape(-1, dim // size)
        nodes = torch.nn.functional.one_hot(codes, size).double().flatten(1)
        return nodes, torch.ones(len(nodes))
    size = dim if dim == 3 else 2
    free = dim - dim // size
    t = torch.linspace(-60, 60, 401)
    logits = torch.stack(torch.meshgrid(*[t] * free, indexing="ij"), -1).reshape(
        -1, dim // size, size - 1
    )
    blocks = torch.cat([logits, torch.zeros_like(logits[..., :1])], -1).softmax(-1)
    return blocks.flatten(1), blocks.prod(-1).prod(-1) * (t[1] - t[0]) ** free


def features(z):
    """Bounded, uneven functions of z, ``(*batch, D + 2)``."""
    a = torch.linspace(0.6, -0.9, z.shape[-1])
    b = torch.linspace(1.1, 0.4, z.shape[-1])
    return torch.cat([z.tanh(), (z @ a).cos().unsqueeze(-1), (z @ b + 0.3).sin().unsqueeze(-1)], -1)


def test_every_law_has_a_row():
    assert {name.split("-")[0] for name in PRIORS} == set(priors.__all__) - {"Prior"}
    assert {name.split("-")[0] for name in POSTERIORS} == set(posteriors.__all__) - {
        "Posterior",
        "Delta",
    }


@pytest.mark.parametrize(("kind", "name"), ALL)
@torch.no_grad()
def test_adds_up_to_one_and_draws_follow_the_density(kind, name):
    p, space, error = law(kind, name)
    nodes, weights = grid(space, p)
    log_p = p.log_prob(nodes)
    mass = weights * log_p.exp()
    assert abs(mass.sum() - 1) < error
    expected = mass @ torch.cat([features(nodes), log_p.clamp_min(-700).unsqueeze(-1)], -1)
    z = p.sample((20_000,))
    found = torch.cat([features(z), p.log_prob(z.clone()).unsqueeze(-1)], -1)
    standard_error = found.std(0) / math.sqrt(len(z))
    # log p is unbounded: its quadrature is coarser in proportion.
    assert ((found.mean(0) - expected).abs() < 5 * standard_error + 10 * error).all()


@pytest.mark.parametrize(("kind", "name"), LINES)
@torch.no_grad()
def test_draws_on_the_line_pass_kolmogorov_smirnov(kind, name):
    """At level 0.001, which a fixed seed makes a plain yes or no."""
    p, space, error = law(kind, name)
    nodes, weights = grid(space, p)
    mass = weights * p.log_prob(nodes).exp()
    below = mass.cumsum(0) - mass / 2  # the trapezoid rule up to a node
    z = p.sample((5_000,)).squeeze(-1).sort().values
    at = torch.searchsorted(nodes[:, 0], z).clamp(1, len(nodes) - 1)
    left, right = nodes[at - 1, 0], nodes[at, 0]
    cdf = below[at - 1] + (z - left) / (right - left) * (below[at] - below[at - 1])
    steps = torch.arange(len(z) + 1) / len(z)
    distance = torch.maximum((cdf - steps[:-1]).abs().max(), (cdf - steps[1:]).abs().max())
    assert distance < 1.95 / math.sqrt(len(z)) + error


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_density_is_differentiable_in_z(kind, name):
    p, space, _ = law(kind, name)
    z = p.sample((3,)).detach().clone()
    if space == "simplex":  # the density is steep at the corners, where finite differences fail
        z = 0.5 * z + 0.5 * torch.full_like(z, 1.0 / 3)
    assert gradcheck(p.log_prob, z.requires_grad_(), atol=1e-5)


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_expands_and_scores_a_copy_of_a_draw_as_the_draw(kind, name):
    p, _, _ = law(kind, name)
    wide = p.expand((5, 4))
    assert wide.batch_shape == (5, 4)
    earlier = wide.sample()
    z = wide.rsample() if wide.has_rsample else wide.sample()
    assert z.shape == (5, 4, *p.event_shape)
    if "one-hot" not in (PRIORS if kind == "prior" else POSTERIORS)[name][1]:
        assert (
            len(torch.unique(z.reshape(20, -1), dim=0)) == 20
        )  # a draw of its own for each element
    at_draw = wide.log_prob(z)
    copy = z.detach().clone()
    first, second = wide.log_prob(copy), wide.log_prob(copy)
    assert at_draw.shape == (5, 4)
    assert_close(first, at_draw)
    assert_close(second, at_draw)
    assert_close(p.log_prob(copy), at_draw)  # and the law that was expanded is as it was
    assert_close(
        wide.log_prob(earlier), p.log_prob(earlier)
    )  # neither is what it remembers the last draw's


@pytest.mark.parametrize("name", POSTERIORS)
def test_a_batch_is_that_of_its_data(name):
    part, _, dim, _ = POSTERIORS[name]
    part = bound_posterior(part, dim)
    outputs = outputs_of(part, 4).requires_grad_()
    q = part.distribution(outputs).expand((5, 4))
    z = q.sample()
    alone = torch.stack(
        [part.distribution(outputs[b]).log_prob(z[:, b].clone()) for b in range(4)], 1
    )
    together = q.log_prob(z)
    assert_close(together, alone)
    # And so are its gradients, at a draw that was made without any.
    gradients = [torch.autograd.grad(log_q.sum(), outputs)[0] for log_q in (together, alone)]
    assert_close(*gradients)


@pytest.mark.parametrize("name", PATHWISE)
def test_reparameterised_gradient_is_the_derivative_of_the_expectation(name):
    part, space, dim, error = POSTERIORS[name]
    part = bound_posterior(part, dim)
    outputs = outputs_of(part).requires_grad_()

    q = part.distribution(outputs)
    nodes, weights = grid(space, q)
    expectation = (weights * q.log_prob(nodes).exp()) @ features(nodes).sum(-1)
    (expected,) = torch.autograd.grad(expectation, outputs)

    each = outputs.detach().expand(20_000, -1).clone().requires_grad_()  # a gradient for each draw
    z = part.distribution(each).rsample()
    (found,) = torch.autograd.grad(features(z).sum(), each)
    standard_error = found.std(0) / math.sqrt(len(found))
    assert expected.abs().max() > 0.02
    assert ((found.mean(0) - expected).abs() < 5 * standard_error + 5 * error).all()


def test_delta_is_a_point():
    part = bound_posterior(posteriors.Delta(), 2)
    outputs = torch.randn(4, 2)
    assert_close(part.distribution(outputs).sample((3,)), outputs.expand(3, 4, 2))
