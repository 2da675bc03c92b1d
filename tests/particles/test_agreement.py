"""Programs that work with particles in front and mean something else by it are found by values."""

import copy
import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.optim import Adam
from torch import nn
from torch.testing import assert_close

import pyrovae as pv
from pyrovae.particles import draw, runs_separately, settle
from pyrovae.svi import Step


class First(nn.Module):
    """``z[:, 0]`` is the first coordinate of z, or with particles in front its first datum."""

    exact = staticmethod(lambda x: dist.Normal(0.0, math.sqrt(1.64)).log_prob(x))

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z[:, 0], 0.8), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.slope * x[:, None], 0.8).to_event(1))


class Plate(First):
    """``w.sum(-2)`` moves the particles to the dimension of the inner plate."""

    exact = staticmethod(lambda x: dist.Normal(0.0, math.sqrt(4.64)).log_prob(x))

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            with pyro.plate("parts", 3, dim=-2):
                w = pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z + w.sum(-2), 0.8), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            with pyro.plate("parts", 3, dim=-2):
                w = pyro.sample("w", dist.Normal(0.2 * x.expand(3, len(x)), 0.9))
            pyro.sample("z", dist.Normal(self.slope * (x - w.sum(-2)), 0.7))


class Softmax(First):
    """``softmax(1)`` is over the elements of z, or with particles in front over the data."""

    exact = None

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.softmax(1).square().sum(-1), 0.8), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.slope * x[:, None].expand(-1, 3), 0.8).to_event(1))


@pytest.fixture
def x():
    return torch.randn(7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def one_by_one(program, particles, x):
    """log p(x, z) or log q(z | x) of each particle, by Pyro alone."""
    found = []
    for k in range(particles.num_particles):
        values = {name: site.value[k] for name, site in particles.latents.items()}
        values = {n: v.reshape(3, 7) if n == "w" else v.reshape(7, -1) for n, v in values.items()}
        if "w" in values:
            values["z"] = values["z"].reshape(7)
        trace = poutine.trace(poutine.condition(program, values)).get_trace(x)
        trace.compute_log_prob()
        names = [name for name in (*values, "x") if name in trace.nodes]
        found.append(sum(trace.nodes[name]["log_prob"].reshape(-1, 7).sum(0) for name in names))
    return torch.stack(found)


@pytest.mark.filterwarnings("ignore:.*does not broadcast")
@pytest.mark.parametrize("kind", [First, Plate, Softmax])
def test_scores_are_those_of_single_runs(kind, x):
    owner = kind()
    particles = pv.estimators.IWAE(4).particles(owner.model, owner.guide, x)
    assert_close(particles.log_p, one_by_one(owner.model, particles, x))
    assert_close(particles.log_q, one_by_one(owner.guide, particles, x))
    assert runs_separately(owner.model)
    assert runs_separately(owner.guide) == (kind is Plate)


@pytest.mark.filterwarnings("ignore:.*does not broadcast")
def test_a_single_datum_is_scored_as_one_of_many(x):
    owner = Softmax()
    particles = pv.estimators.IWAE(4).particles(owner.model, owner.guide, x[:1])
    mean = particles.latents["z"].value.softmax(-1).square().sum(-1)
    assert_close(particles.log_likelihood, dist.Normal(mean, 0.8).log_prob(x[:1]))
    one, all_ = (
        pv.log_marginal(owner.model, owner.guide, data, num_particles=30)
        for owner, data in ((Softmax(), x[:1]), (Softmax(), x))
    )
    assert_close(one.log_marginal.values[0], all_.log_marginal.values[0])


@pytest.mark.filterwarnings("ignore:.*does not broadcast")
@pytest.mark.parametrize(
    ("kind", "method"),
    [
        (First, pv.ImportanceSampling(300)),
        (Plate, pv.ImportanceSampling(300)),
        (First, pv.AIS(4, 30, num_leapfrog=2)),
    ],
    ids=["first", "plate", "AIS"],
)
def test_evidence_is_exact(kind, method, x):
    """Without the trial it is off by half a nat or more, and by K nats for the inner plate."""
    owner = kind()
    evidence = pv.log_marginal(owner.model, owner.guide, x, method=method)
    error = evidence.log_marginal.values - kind.exact(x).numpy()
    assert (abs(error) < 5 * evidence.standard_error.values + 1e-9).all()


@pytest.mark.filterwarnings("ignore:.*does not broadcast")
def test_imputation_takes_single_runs(x):
    """Here x is missing and y = x is not, so x lies near y."""

    class Two(First):
        def model(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
                law = dist.Normal(3 * z[:, 0].unsqueeze(-1).expand(*z.shape[:-1], 2), 0.1)
                pyro.sample("x", law.to_event(1), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x[:, 1:] / 3, 0.05).to_event(1))

    owner, both = Two(), torch.stack([x, x], -1)
    mask = torch.tensor([False, True]).expand(7, 2)
    draws, _ = pv.impute(owner.model, owner.guide, both, mask, num_draws=5)
    assert ((draws[..., 0] - x).abs() < 0.7).all()  # five standard deviations of x given y


@pytest.mark.filterwarnings("ignore:.*does not broadcast")
def test_a_captured_step_is_that_of_single_runs(x):
    owner = Softmax()
    twin = copy.deepcopy(owner)
    for each, capture in ((owner, True), (twin, False)):
        trained = list(each.parameters())
        optimizer = torch.optim.Adam(trained, lr=0.1)
        step = Step(
            each.model, each.guide, pv.estimators.DReG(3), optimizer, trained,
            capture=capture, compile=False,
        )  # fmt: skip
        torch.manual_seed(0)
        for _ in range(3):
            step(x)
        assert runs_separately(each.model)
        assert bool(step.compiled.graphs) == capture
    assert_close(owner.slope, twin.slope)


@pytest.mark.filterwarnings("ignore:.*does not broadcast")
def test_the_loss_of_a_captured_svi_is_that_of_single_runs(x):
    owner = Softmax()
    optimizer = Adam({"lr": 0.1})
    svi = pv.SVI(owner.model, owner.guide, optimizer, pv.estimators.IWAE(3))
    svi.evaluate_loss(x)
    assert runs_separately(owner.model)


class Noisy(First):
    """A program with random numbers of its own, and a layer that is random in training."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            loc = self.drop(z)[..., 0] + torch.randn_like(z[..., 0])
            pyro.sample("x", dist.Normal(loc, 0.8), obs=x)


def test_programs_that_broadcast_are_left_alone(x):
    """Whatever they are made of; nor does a trial leave a trace."""
    noisy = Noisy()
    table = (torch.rand(8, 5, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    vaes = [
        pv.VAE(5, 2, prior=pv.priors.Vamp(4), posterior=pv.posteriors.Flow()),
        pv.VAE((1, 8, 8), 3, encoder=pv.nets.Conv(4), decoder=pv.nets.Conv(4)),
        pv.HierarchicalVAE(5, (3, 2)),
    ]
    images = table[:, :1, None, None].expand(-1, 1, 8, 8).contiguous()
    programs = [(noisy, x), (vaes[0], table), (vaes[1], images), (vaes[2], table)]
    for owner, data in programs:
        owner.train()
        buffers = copy.deepcopy(dict(owner.named_buffers()))
        state = torch.get_rng_state()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            settle(owner.model, owner.guide, (data,))
        assert not runs_separately(owner.model)
        assert not runs_separately(owner.guide)
        assert owner.training
        assert torch.equal(torch.get_rng_state(), state)
        assert_close(dict(owner.named_buffers()), buffers)


def test_a_trial_is_made_once(x):
    runs = []

    class Counted(First):
        def model(self, x):
            runs.append(x)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z[..., 0], 0.8), obs=x)

    owner = Counted()
    pv.estimators.IWAE(3).bound(owner.model, owner.guide, x)
    runs.clear()
    pv.estimators.IWAE(3).bound(owner.model, owner.guide, x)
    assert len(runs) == 1
    draw(owner.model, owner.guide, 3, (x,))
    assert len(runs) == 2
