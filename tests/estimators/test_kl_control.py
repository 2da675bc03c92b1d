"""Free bits and capacity: their gradients follow their formulas, and what is reported does not
move.
"""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch.testing import assert_close

from pyrovae.estimators import ELBO, IWAE, STL, AnalyticKL, Capacity, DReG, FreeBits, ScoreELBO
from pyrovae.handlers import KLScale
from pyrovae.schedules import Linear
from pyrovae.testing import LinearGaussian

LINEAR = [ELBO(3), AnalyticKL(3), STL(3), ScoreELBO(3)]


def gradient(module, scalar):
    found = torch.autograd.grad(scalar, list(module.parameters()), allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).flatten()
            for p, g in zip(module.parameters(), found, strict=True)
        ]
    )


@pytest.fixture
def oracle():
    made = LinearGaussian(shift=0.5, latent_dim=4, seed=2)
    return made, made.sample(6)


def loss(estimator, module, x, beta=None):
    torch.manual_seed(0)
    if beta is None:
        return estimator.differentiable_loss(module.model, module.guide, x)
    return estimator.differentiable_loss(
        KLScale(beta)(module.model), KLScale(beta)(module.guide), x
    )


def element_kl(module, x):
    """``(B, D)``: KL of each dimension in closed form."""
    mean, log_scale = x @ module.gain.T + module.offset, module.log_scale
    return 0.5 * (mean**2 + (2 * log_scale).exp() - 1 - 2 * log_scale)


def reconstruction(module, x):
    """Sum over data of the mean of log p(x | z) for three draws, those of :func:`loss`."""
    torch.manual_seed(0)
    z = (
        x @ module.gain.T
        + module.offset
        + module.log_scale.exp() * torch.randn(3, *x.shape[:1], 4, dtype=x.dtype)
    )
    log_x = dist.Normal(z @ module.weight.T + module.bias, module.log_noise.exp()).log_prob(x)
    return log_x.sum(-1).mean(0).sum()


@pytest.mark.parametrize("beta", [None, 0.3])
@pytest.mark.parametrize(("per", "size"), [("dimension", 1), (2, 2), ("site", 4)])
def test_free_bits_have_the_gradient_of_their_formula(per, size, beta, oracle):
    module, x = oracle
    groups = element_kl(module, x).mean(0).reshape(-1, size).sum(1)
    # Between the groups: at the KL of one of them, its rounding would decide.
    nats = groups.sort().values[: max(len(groups) - 1, 2)].mean().item() if len(groups) > 1 else 0.1
    assert (groups > nats).any()
    formula = reconstruction(module, x) - (beta or 1.0) * len(x) * groups.clamp_min(nats).sum()
    found = loss(FreeBits(AnalyticKL(3), nats, per=per), module, x, beta)
    assert_close(gradient(module, found), -gradient(module, formula))


def test_a_site_below_its_allowance_leaves_the_reconstruction_alone(oracle):
    module, x = oracle
    for per in ("site", "dimension"):
        found = loss(FreeBits(AnalyticKL(3), 1e6, per=per), module, x)
        assert_close(gradient(module, found), -gradient(module, reconstruction(module, x)))


@pytest.mark.parametrize("estimator", LINEAR, ids=repr)
@pytest.mark.parametrize("per", ["dimension", "site"])
def test_no_allowance_is_the_plain_estimator(estimator, per, oracle):
    module, x = oracle
    plain = gradient(module, loss(estimator, module, x))
    assert_close(gradient(module, loss(FreeBits(estimator, 0.0, per=per), module, x)), plain)


@pytest.mark.parametrize("estimator", LINEAR, ids=repr)
def test_an_infinite_allowance_is_beta_zero(estimator, oracle):
    module, x = oracle
    plain = gradient(module, loss(estimator, module, x, 0.0))
    for per in ("dimension", "site"):
        assert_close(gradient(module, loss(FreeBits(estimator, 1e6, per=per), module, x)), plain)


@pytest.mark.parametrize("make", [FreeBits, Capacity])
@pytest.mark.parametrize("estimator", LINEAR, ids=repr)
def test_what_is_reported_is_the_wrapped_estimator(make, estimator, oracle):
    module, x = oracle
    assert_close(
        loss(make(estimator, 1.0), module, x).detach(), loss(estimator, module, x).detach()
    )
    bounds = []
    for each in (make(estimator, 1.0), estimator):
        torch.manual_seed(0)
        bounds.append(each.bound(module.model, module.guide, x))
    assert_close(*bounds)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_capacity_has_the_gradient_of_its_formula(factor, oracle):
    module, x = oracle
    kl = element_kl(module, x).sum(-1).mean()
    target = factor * kl.item()
    formula = reconstruction(module, x) - 7.0 * len(x) * (kl - target).abs()
    found = loss(Capacity(AnalyticKL(3), target, gamma=7.0), module, x)
    assert_close(gradient(module, found), -gradient(module, formula))


def test_capacity_follows_its_schedule(oracle):
    module, x = oracle
    kl = element_kl(module, x).sum(-1).mean().item()
    estimator = Capacity(AnalyticKL(3), Linear(0.0, 2 * kl, steps=10), gamma=7.0)
    early = gradient(module, loss(estimator, module, x))
    estimator.advance(9)
    late = gradient(module, loss(estimator, module, x))
    assert_close((early + late) / 2, -gradient(module, reconstruction(module, x)))


def test_elements_are_told_apart_in_two_layers_and_by_monte_carlo():
    """Sites without a closed form are judged by their draws: gates of zero and one, nothing
    between.
    """

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            mixture = dist.MixtureSameFamily(
                dist.Categorical(torch.ones(3, 2)),
                dist.Normal(torch.tensor([-1.0, 1.0]).expand(3, 2), 0.5),
            )
            z = pyro.sample("z", mixture.to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    loc = torch.tensor([0.0, 1.0, 8.0], requires_grad=True)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(loc.expand(len(x), 3), 0.5).to_event(1))

    x = torch.zeros(4, 3)
    grads = {}
    for name, estimator in {"free": FreeBits(ELBO(50), 5.0), "plain": ELBO(50)}.items():
        for beta in (0.0, 1.0):
            torch.manual_seed(0)
            value = estimator.differentiable_loss(KLScale(beta)(model), KLScale(beta)(guide), x)
            (grads[name, beta],) = torch.autograd.grad(value, loc)
    assert_close(grads["free", 1.0][:2], grads["plain", 0.0][:2])
    assert_close(grads["free", 1.0][2], grads["plain", 1.0][2])
    assert (grads["plain", 1.0] - grads["plain", 0.0]).abs().min() > 0.1


@pytest.mark.parametrize("estimator", [AnalyticKL(), ELBO(3)], ids=repr)
def test_the_allowance_is_for_what_the_bound_counts(estimator):
    """A site of one element has one KL: over its inner plate, where no mask hides it."""
    x = torch.tensor([[0.5, 1.0, -0.3], [0.1, -2.0, 0.9]], dtype=torch.float64)  # (inner, B)
    slope = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    shown = torch.tensor([[True, True, False], [True, False, False]])

    def program(x, observe):
        plates = pyro.plate("data", 3, dim=-1), pyro.plate("inner", 2, dim=-2)
        with plates[0], plates[1], poutine.mask(mask=shown):
            z = pyro.sample("z", dist.Normal(0.0 if observe else slope * x, x.new_tensor(0.7)))
            if observe:
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    model, guide = partial(program, observe=True), partial(program, observe=False)
    kl = float((0.5 * (slope.item() * x / 0.7) ** 2 * shown).sum(0).mean())
    found = []
    for per, nats in (("dimension", 0.99 * kl), ("site", 0.0), ("dimension", 1.01 * kl)):
        torch.manual_seed(0)
        loss = FreeBits(estimator, nats, per=per).differentiable_loss(model, guide, x)
        found.append(torch.autograd.grad(loss, slope)[0])
    assert_close(found[0], found[1])
    assert (found[0] - found[2]).abs() > 0.1


def test_what_cannot_be_controlled_is_refused(oracle):
    module, x = oracle
    for estimator in (IWAE(3), DReG(3)):
        for control in (FreeBits, Capacity):
            with pytest.raises(ValueError, match="importance-weighted"):
                control(estimator)
    with pytest.raises(TypeError, match="wraps an instance"):
        FreeBits(ELBO)
    with pytest.raises(ValueError, match="nats >= 0"):
        FreeBits(nats=-1.0)
    with pytest.raises(ValueError, match="per='dimension'"):
        FreeBits(per="layer")
    with pytest.raises(ValueError, match="gamma >= 0"):
        Capacity(gamma=-1.0)
    with pytest.raises(ValueError, match="does not divide the 4 elements"):
        FreeBits(per=3).bound(module.model, module.guide, x)


def test_dependent_elements_are_refused_by_name():
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.MultivariateNormal(torch.zeros(2), torch.eye(2)))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x, 1.0).to_event(1))

    with pytest.raises(ValueError, match=r"prior of site 'z' is a MultivariateNormal.*per='site'"):
        FreeBits(ELBO()).bound(model, guide, torch.zeros(3, 2))
    FreeBits(ELBO(), per="site").bound(model, guide, torch.zeros(3, 2))


def test_another_number_of_draws_keeps_what_training_has_set():
    estimator = Capacity(ELBO(2), Linear(0.0, 10.0, steps=10))
    estimator.advance(5)
    estimator.max_plate_nesting = 2
    other = estimator.with_draws(7)
    assert (other.num_draws, other.estimator.num_draws, estimator.num_draws) == (7, 7, 2)
    assert (other.now.item(), other.max_plate_nesting) == (5.0, 2)
    assert (
        repr(other)
        == "Capacity(estimator=ELBO(num_particles=7), capacity=Linear(stop=10.0, steps=10))"
    )
