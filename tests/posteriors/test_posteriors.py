"""What is particular to a posterior: closed KLs, parts of the user's own, arguments.

That every posterior is a law, and its draws' gradients, are tested in
``tests/distributions/test_latent_laws.py``.
"""

import math
import re
from pathlib import Path

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

import pyrovae as pv
from pyrovae import nets, posteriors, priors

PAGE = Path(__file__).resolve().parents[2] / "docs" / "priors_and_posteriors.md"

NORMAL = dist.Normal(
    torch.tensor([0.3, -1.0, 0.0, 2.0]).double(), torch.tensor([0.5, 1.0, 2.0, 1.5]).double()
)


@pytest.fixture(autouse=True)
def exact():
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def bound(part):
    return part.bind(latent_dim=4, data_shape=(3,), encoder=nets.MLP(4))


def learned_categorical():
    prior = priors.Categorical(num_categories=2, learned=True).bind(latent_dim=4, data_shape=(3,))
    torch.nn.init.normal_(prior.logits)
    return prior()


CLOSED = {
    "DiagonalNormal": (posteriors.DiagonalNormal, lambda: priors.StandardNormal()),
    "FullRankNormal": (posteriors.FullRankNormal, lambda: priors.StandardNormal()),
    "LowRankNormal": (posteriors.LowRankNormal, lambda: priors.StandardNormal()),
    "FullRankNormal-Normal": (posteriors.FullRankNormal, lambda: NORMAL.to_event(1)),
    "LowRankNormal-Normal": (posteriors.LowRankNormal, lambda: NORMAL.to_event(1)),
    "PowerSpherical": (posteriors.PowerSpherical, lambda: priors.HypersphericalUniform()),
    "Categorical": (lambda: posteriors.Categorical(num_categories=2), learned_categorical),
}


@pytest.mark.parametrize("name", CLOSED)
def test_closed_kl_is_that_of_monte_carlo(name):
    make, other = CLOSED[name]
    part, p = bound(make()), other()
    p = p.bind(latent_dim=4, data_shape=(3,))() if isinstance(p, priors.Prior) else p
    q = part.distribution(torch.randn(3, part.output_size()))
    z = q.sample((20_000,))
    found = q.log_prob(z) - p.log_prob(z)
    closed = kl_divergence(q, p.expand((3,)))
    assert closed.shape == (3,)
    assert ((found.mean(0) - closed).abs() < 5 * found.std(0) / math.sqrt(len(z))).all()


@pytest.mark.parametrize("other", [priors.Laplace(), priors.GaussianMixture(2)])
def test_a_kl_without_a_closed_form_says_so(other):
    part = bound(posteriors.FullRankNormal())
    q = part.distribution(torch.randn(part.output_size()))
    with pytest.raises(NotImplementedError):
        kl_divergence(q, other.bind(latent_dim=4, data_shape=(3,))())


@pytest.mark.parametrize("block", ["prior", "posterior"])
def test_parts_of_the_documentation_train_and_are_bounds(block):
    """The part on the page fits, and its IWAE bound lies between the ELBO and the evidence, up to
    Monte Carlo error.
    """
    sources = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names = {}
    for source in sources:
        exec(source, names)
    own = {"prior": names["AutoregressivePrior"], "posterior": names["StudentTPosterior"]}[block]
    assert sum(map(bool, next(s for s in sources if own.__name__ in s).splitlines())) < 25
    vae = pv.VAE((3,), 4, **{block: own()}, encoder=nets.MLP(8), decoder=nets.MLP(8))
    x = (
        (torch.rand(64, 1) < 0.5).double().expand(-1, 3).contiguous()
    )  # three equal bits: log 2 nats
    optimizer = torch.optim.Adam(vae.parameters(), lr=2e-2)
    iwae = pv.estimators.IWAE(num_particles=8)
    start = iwae.bound(vae.model, vae.guide, x).mean().item()
    for _ in range(150):
        optimizer.zero_grad()
        iwae.loss_and_grads(vae.model, vae.guide, x)
        assert all(p.grad is not None and p.grad.isfinite().all() for p in vae.parameters())
        optimizer.step()
    with torch.no_grad():
        elbo, tight, evidence = (
            pv.estimators.IWAE(num_particles=k).bound(vae.model, vae.guide, x).mean().item()
            for k in (1, 8, 4000)
        )
        # The prior itself as proposal: the same evidence from a sampler that shares nothing with
        # the guide.
        z = vae.prior().sample((20_000,))
        p_x = torch.stack([vae.likelihood(z).log_prob(row) for row in x[:1]])
        plain = p_x.logsumexp(1) - math.log(len(z))
        first = pv.estimators.IWAE(num_particles=20_000).bound(vae.model, vae.guide, x[:1])
    assert start < tight - 0.5
    assert (
        elbo < tight + 0.02
    )  # the means of 64 bounds, each within a few hundredths of its own mean
    assert tight < evidence + 0.02
    torch.testing.assert_close(first, plain, atol=0.05, rtol=0.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: posteriors.DiagonalNormal(scale="square"), "'softplus' or 'exp', found 'square'"),
        (lambda: posteriors.DiagonalNormal(log_variance_range=(-6, 2)), "scale='exp'"),
        (lambda: posteriors.DiagonalNormal(scale="exp", log_variance_range=(2, -6)), "low < high"),
        (lambda: posteriors.DiagonalNormal(min_scale=-1e-3), "must not be negative, found -0.001"),
        (lambda: posteriors.FullRankNormal(min_scale=-1), "must not be negative, found -1"),
        (lambda: posteriors.LowRankNormal(rank=0), "rank >= 1, found 0. Use DiagonalNormal"),
        (lambda: posteriors.Mixture(0), "num_components >= 1"),
        (lambda: posteriors.Flow(transform="cubic"), "'affine' or 'spline'"),
        (lambda: posteriors.Flow(context=0), "context >= 1"),
        (lambda: posteriors.PowerSpherical(0), "must be positive"),
        (lambda: posteriors.RelaxedCategorical(temperature=-1), "positive, found -1"),
        (lambda: bound(posteriors.Categorical(3)), "latent_dim=4 and num_categories=3"),
    ],
)
def test_arguments_that_make_no_posterior_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_log_variance_is_clamped_to_its_range():
    part = bound(posteriors.DiagonalNormal(scale="exp", log_variance_range=(-6.0, 2.0)))
    q = part.distribution(torch.tensor([0.0, 0, 0, 0, -50.0, -6.0, 1.0, 50.0]))
    expected = torch.tensor([-6.0, -6.0, 1.0, 2.0]).exp()
    torch.testing.assert_close(q.variance, expected)
