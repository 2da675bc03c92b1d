"""Programs that take no dimension in front: as they are for one particle, one after another for
several.
"""

import copy
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.gradients import gradient
from pyro.infer import Trace_ELBO
from torch import nn
from torch.testing import assert_close

import pyrovae as pv
from pyrovae.estimators import (
    ELBO,
    IWAE,
    PIWAE,
    RWS,
    STL,
    TVO,
    VIMCO,
    AnalyticKL,
    BetaTC,
    DReG,
    FreeBits,
    RWSDReG,
    ScoreELBO,
)
from pyrovae.particles import InvalidParameters, score_values
from pyrovae.svi import Step

pytestmark = pytest.mark.filterwarnings("ignore:.*does not broadcast")


class Picture(nn.Module):
    """A convolutional pair as people write it: Unflatten counts its dimension from the left."""

    def __init__(self, broadcasts=False):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 3, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)
        )
        self.dense = nn.Linear(2, 12)
        self.decoder = nn.Sequential(
            nn.Unflatten(1, (3, 2, 2)), nn.ConvTranspose2d(3, 1, 4, 4), nn.Sigmoid()
        )
        self.broadcasts = broadcasts
        self.double()

    def decode(self, z):
        h = self.dense(z)
        if not self.broadcasts:
            return self.decoder(h)
        return self.decoder(h.reshape(-1, 12)).reshape(*h.shape[:-1], 1, 8, 8)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(self.decode(z)).to_event(3), obs=x)

    def guide(self, x):
        mean, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(mean, log_scale.exp()).to_event(1))


class Chain(nn.Module):
    """z2 -> z1 -> x with a bottom-up guide; if ``strict``, z must have the shape that one run gives
    it.
    """

    def __init__(self, strict):
        super().__init__()
        values = [0.8, 1.3, 0.6, -0.1, 0.4, 0.2]
        self.weights = nn.Parameter(torch.tensor(values, dtype=torch.float64))
        self.strict = strict

    def seen(self, z, x):
        if self.strict and z.shape != x.shape:
            raise RuntimeError(f"expected {tuple(x.shape)}, got {tuple(z.shape)}")
        return z

    def model(self, x):
        a, b = self.weights[:2]
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(a * self.seen(z2, x), 0.7).to_event(1))
            pyro.sample("x", dist.Normal(b * self.seen(z1, x), 0.5).to_event(1), obs=x)

    def guide(self, x):
        c, d, e, f = self.weights[2:]
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(c * x, d.exp()).to_event(1))
            pyro.sample("z2", dist.Normal(e * self.seen(z1, x), f.exp()).to_event(1))


class Single(Chain):
    """z -> x."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
            scale = self.weights[1].exp()
            pyro.sample(
                "x", dist.Normal(self.weights[0] * self.seen(z, x), scale).to_event(1), obs=x
            )

    def guide(self, x):
        with pyro.plate("data", len(x)):
            loc = self.seen(self.weights[2] * x, x)
            pyro.sample("z", dist.Normal(loc, self.weights[3].exp()).to_event(1))


@pytest.fixture
def x():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(5, 2, generator=generator, dtype=torch.float64)


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(6, 1, 8, 8, generator=generator, dtype=torch.float64).round()


@pytest.fixture
def noise(monkeypatch):
    """Makes standard normal numbers depend on site and particle alone, in whichever order they are
    asked for.
    """

    def fix(num_particles, num_sites, shape):
        generator = torch.Generator().manual_seed(2)
        table = torch.randn(num_sites, num_particles, *shape, generator=generator).double()
        calls = 0

        def numbers(asked, dtype=None, device=None):
            nonlocal calls
            calls += 1
            if tuple(asked) == tuple(shape):
                return table[(calls - 1) % num_sites, (calls - 1) // num_sites % num_particles]
            assert tuple(asked) == (num_particles, *shape)
            return table[(calls - 1) % num_sites]

        monkeypatch.setattr(torch.distributions.normal, "_standard_normal", numbers)

    return fix


def results(estimator, owner, x):
    particles = estimator.particles(owner.model, owner.guide, x)
    terms = estimator.terms(particles)
    return (
        terms.bound.detach(),
        estimator.kl(particles).detach(),
        gradient(owner, estimator.loss_of(terms)),
    )


EVERY = [
    ELBO(3),
    AnalyticKL(3),
    STL(3),
    ScoreELBO(3),
    IWAE(3),
    DReG(3),
    PIWAE(1, 3),
    TVO(3),
    VIMCO(3),
    RWS(3),
    RWSDReG(3),
    FreeBits(AnalyticKL(3), 0.3),
    FreeBits(ELBO(3), 0.3, per="site"),
]


@pytest.mark.filterwarnings("ignore:AnalyticKL")
@pytest.mark.parametrize("kind", [Chain, Single])
@pytest.mark.parametrize("estimator", [*EVERY, BetaTC(3)], ids=repr)
def test_one_after_another_is_all_at_once(kind, estimator, x, noise):
    """Bounds, KL and gradients are those of the same programs under a plate of particles, for the
    same noise.
    """
    if isinstance(estimator, BetaTC) and kind is Chain:
        pytest.skip("one site only")
    found = []
    for strict in (False, True):
        owner = kind(strict)
        estimator.settle(owner.model, owner.guide, x)  # which would take numbers of the fixture
        noise(3, 2 if kind is Chain else 1, x.shape)
        found.append(results(estimator, owner, x))
    for plain, ours in zip(*found, strict=True):
        assert_close(ours, plain)


def test_one_particle_is_what_pyro_runs(pictures):
    owner = Picture()
    losses = []
    for elbo in (Trace_ELBO(), ELBO()):
        torch.manual_seed(4)
        loss = elbo.differentiable_loss(owner.model, owner.guide, pictures)
        losses.append((loss, gradient(owner, loss)))
    assert_close(losses[1], losses[0])


def test_several_particles_are_right_for_a_decoder_that_takes_none(pictures):
    plain, ours = Picture(True), Picture()
    torch.manual_seed(0)
    values = {"z": torch.randn(4, len(pictures), 2, dtype=torch.float64)}
    found = [score_values(p.model, p.guide, values, (pictures,)) for p in (plain, ours)]
    assert_close(found[1].log_weights, found[0].log_weights)


def halves(keep):
    """Programs with a plate of two inside the data's, whose parts are told apart afterwards."""
    first, second = (slice(0, 1), slice(1, 2)) if keep else (0, 1)

    def program(x, observed=True):
        with pyro.plate("data", len(x), dim=-1):
            with pyro.plate("halves", 2, dim=-2):
                a = pyro.sample("a", dist.Normal(torch.zeros_like(x), 1.0))
            b = pyro.sample("b", dist.Normal(a[..., first, :] - a[..., second, :], 1.0))
            if observed:
                pyro.sample("x", dist.Normal(a[..., first, :] + b, 1.0), obs=x)

    return program, lambda x: program(x, observed=False)


@pytest.mark.filterwarnings("ignore:.*does not broadcast")
def test_a_program_that_takes_a_plate_away_is_right_with_several_particles():
    """Under a plate of particles ``a[..., 0, :]`` leaves these in the dimension of the inner plate,
    where its site would be counted for each of them.
    """
    x = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64)
    (model, guide), plain = halves(False), halves(True)
    torch.manual_seed(0)
    kind = {"dtype": torch.float64}
    values = {"a": torch.randn(4, 2, 3, **kind), "b": torch.randn(4, 1, 3, **kind)}
    found = score_values(model, guide, values, (x,), max_plate_nesting=2)
    right = score_values(*plain, values, (x,), max_plate_nesting=2)
    assert_close(found.log_weights, right.log_weights)
    torch.manual_seed(0)
    found = ELBO(50_000).bound(*plain, x)  # all at once
    torch.manual_seed(0)
    some = ELBO(300, max_plate_nesting=2).bound(model, guide, x)
    # The log-weights have a standard deviation of up to 6.5 over draws.
    assert_close(some, found, rtol=0, atol=4 * 6.5 / 300**0.5)


def test_layers_that_mix_the_dimensions_are_right_at_one_particle(x):
    """softmax(dim=1) would run over the data if a dimension stood in front of them."""

    class Mixed(Single):
        def seen(self, z, x):
            return z.softmax(1)

    owner = Mixed(False)
    losses = []
    for elbo in (Trace_ELBO(), ELBO(), STL()):
        torch.manual_seed(4)
        losses.append(elbo.differentiable_loss(owner.model, owner.guide, x).detach())
    assert_close(losses[1:], losses[:1] * 2)


def test_the_shapes_of_one_particle_are_those_of_many(x):
    owner = Single(True)
    found = ELBO().particles(owner.model, owner.guide, x)
    assert found.log_weights.shape == (1, 5)
    assert found.latents["z"].value.shape == (1, 5, 2)
    assert found.latents["z"].posterior.batch_shape == (1, 5)


def test_the_trial_is_made_once_and_told_of(x):
    owner, runs = Single(True), []
    plain = owner.seen
    owner.seen = lambda z, x: (runs.append(z.shape), plain(z, x))[1]
    with pytest.warns(UserWarning, match="does not broadcast over a dimension of particles"):
        IWAE(3).bound(owner.model, owner.guide, x)
    runs.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        IWAE(3).bound(owner.model, owner.guide, x)
    assert runs == [x.shape] * 6  # three of the guide, three of the model


def test_a_program_that_fails_either_way_says_why(x):
    def model(x):
        raise KeyError("no such thing")

    with pytest.raises(KeyError, match="no such thing"):
        ELBO(3).bound(model, Single(False).guide, x)


@pytest.mark.parametrize("estimator", [ELBO(), STL(), DReG(3), AnalyticKL(2)], ids=repr)
def test_training_is_captured(estimator, pictures):
    owner = Picture()
    twin = copy.deepcopy(owner)
    steps = []
    for each, capture in ((owner, True), (twin, False)):
        parameters = list(each.parameters())
        optimizer = torch.optim.Adam(parameters, lr=1e-2)
        step = Step(
            each.model, each.guide, estimator, optimizer, parameters, compile=False, capture=capture
        )
        torch.manual_seed(3)
        for _ in range(3):
            step(pictures)
        steps.append(step)
    assert steps[0].compiled.reason is None, steps[0].compiled.reason
    for a, b in zip(owner.parameters(), twin.parameters(), strict=True):
        assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("num_particles", [1, 3])
def test_fit_comparison_and_evidence_take_such_programs(num_particles, pictures):
    owner = Picture()
    kind = ELBO(1) if num_particles == 1 else IWAE(num_particles)
    x = pictures.float()
    owner.float()
    history = pv.fit(
        owner.model, owner.guide, x, estimator=kind, epochs=2, batch_size=3, compile=False
    )
    assert torch.as_tensor(history["train_bound"]).isfinite().all()
    table = pv.compare_estimators(
        owner.model,
        owner.guide,
        x,
        {"ours": kind},
        num_replicates=5,
        reference_particles=20,
        seed=0,
    )
    assert "ours" in repr(table)
    plain = Picture(True)
    plain.load_state_dict(owner.state_dict())
    ours, theirs = (
        pv.log_marginal(p.model, p.guide, x, num_particles=50, seed=0).log_marginal
        for p in (owner, plain.float())
    )
    assert_close(torch.as_tensor(ours.values), torch.as_tensor(theirs.values), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("num_particles", [1, 3])
def test_both_programs_and_all_particles_see_the_same_subsample(strict, num_particles):
    """With the exact posterior as guide, every weight is log p(x) of a datum
    that both have seen.
    """
    x = torch.arange(8.0, dtype=torch.float64)

    def model(x):
        with pyro.plate("data", len(x), subsample_size=3) as index:
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
            if strict and z.shape != (3,):
                raise RuntimeError("too many dimensions")
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[index])

    def guide(x):
        with pyro.plate("data", len(x), subsample_size=3) as index:
            pyro.sample("z", dist.Normal(x[index] / 2, 0.5**0.5))

    truth = dist.Normal(0.0, 2.0**0.5).log_prob(x)
    for seed in range(5):
        torch.manual_seed(seed)
        found = IWAE(num_particles).particles(model, guide, x).log_weights
        assert found.shape == (num_particles, 3)
        # Scales given as Python numbers are rounded to single precision.
        assert_close(found, found[:1].expand_as(found), rtol=0, atol=1e-5)
        gaps = (found[0, :, None] - truth).abs().amin(1)
        assert_close(gaps, torch.zeros_like(gaps), rtol=0, atol=1e-5)


# --- plates --------------------------------------------------------------------------------------


class Views(nn.Module):
    """Data of shape (B, T), each element in a plate inside that of the data, or outside it."""

    def __init__(self, order):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(0.3))
        self.order = order

    def plates(self, x):
        data, inner = ("data", len(x)), ("inner", x.shape[1])
        if self.order == "inside":  # data at dim -1
            return pyro.plate(*data, dim=-1), pyro.plate(*inner, dim=-2)
        return pyro.plate(*inner, dim=-1), pyro.plate(*data, dim=-2)

    def model(self, x):
        first, second = self.plates(x)
        with first, second:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x.T if self.order == "inside" else x)

    def guide(self, x):
        first, second = self.plates(x)
        with first, second:
            value = x.T if self.order == "inside" else x
            pyro.sample("z", dist.Normal(self.mean * value, 0.4))


@pytest.mark.parametrize("estimator", [ELBO(1), ELBO(3), IWAE(3), DReG(3)], ids=repr)
def test_a_plate_inside_that_of_the_data_needs_no_argument(estimator, x):
    """The mean over draws is checked in closed form: no argument says how deep the plates nest."""
    x = x.float()
    owner = Views("inside")
    torch.manual_seed(0)
    with torch.no_grad():
        owner.mean.fill_(0.8)
    found = estimator.bound(owner.model, owner.guide, x.repeat(2_000, 1)).reshape(2_000, 5)
    truth = dist.Normal(0.0, 1.25**0.5).log_prob(x).sum(1)
    posterior = dist.Normal(0.8 * x, 0.2**0.5)
    gap = torch.distributions.kl_divergence(dist.Normal(0.8 * x, 0.4), posterior).sum(1)
    if isinstance(estimator, ELBO):
        error = found.std(0) / 2_000**0.5
        assert ((found.mean(0) - (truth - gap)).abs() < 4.5 * error).all()
    else:
        assert (found.mean(0) < truth + 0.01).all()
        assert (found.mean(0) > truth - gap).all()


def test_fit_and_comparison_take_a_plate_inside(x):
    x, owner = x.float(), Views("inside")
    history = pv.fit(owner.model, owner.guide, x, estimator=ELBO(3), epochs=1, compile=False)
    assert torch.as_tensor(history["train_bound"]).isfinite().all()
    table = pv.compare_estimators(
        owner.model, owner.guide, x, {"ours": IWAE(3)}, num_replicates=5, reference_particles=20
    )
    assert "ours" in repr(table)


def test_a_step_with_a_plate_inside_is_captured(x):
    x, owner = x.float(), Views("inside")
    step = Step(owner.model, owner.guide, IWAE(3), torch.optim.Adam([owner.mean]), [owner.mean])
    with pyro.validation_enabled(False):  # which would run the programs before they are captured
        step(x)
    assert step.compiled.reason is None


def test_fit_and_comparison_refuse_a_plate_outside(x):
    x, owner = x.float(), Views("outside")
    with pytest.raises(ValueError, match=r"plate 'data' of the 5 data is at dim=-2"):
        pv.fit(owner.model, owner.guide, x, estimator=ELBO(3), epochs=1, compile=False)
    with pytest.raises(ValueError, match=r"plate 'data' of the 5 data is at dim=-2"):
        pv.compare_estimators(
            owner.model, owner.guide, x, {"ours": ELBO(2)}, num_replicates=5, reference_particles=20
        )


# --- parameters that overflow
# ----------------------------------------------------------------------


@pytest.mark.parametrize("num_particles", [1, 3])
def test_parameters_out_of_range_are_one_line(num_particles, x):
    def model(x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(z2, (1000.0 * z2.abs() + 800.0).exp()).to_event(1))
            pyro.sample("x", dist.Normal(z1, z1 * float("inf")).to_event(1), obs=x)

    with pytest.raises(InvalidParameters, match="In the model, after site 'z1'") as caught:
        ELBO(num_particles).loss(model, Chain(False).guide, x)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
