"""A datum's evidence depends on the datum and the seed alone: for every prior, posterior and
method.

Order, other data, memory and copies of the data change nothing but the last digits. Most models are
in float64, where these digits are far behind the point: how a sum is rounded does depend on how
many data are scored at once.
"""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae import nets, posteriors, priors
from pyrovae.evidence import AIS, ImportanceSampling
from pyrovae.evidence.methods.double import DoublePrecision
from pyrovae.evidence.streams import DatumStreams, data_keys
from pyrovae.testing import LinearGaussian

PAIRS = {
    "normal": (priors.StandardNormal(), posteriors.DiagonalNormal()),
    "full-rank": (priors.GaussianMixture(num_components=2), posteriors.FullRankNormal()),
    "low-rank": (priors.Laplace(), posteriors.LowRankNormal(rank=1)),
    "mixture": (priors.StudentT(), posteriors.Mixture(num_components=2)),
    "flows": (
        priors.Flow(num_transforms=2, hidden=(8,)),
        posteriors.Flow(num_transforms=1, hidden=(8,), context=4),
    ),
    "coupling": (
        priors.Flow(num_transforms=2, hidden=(8,), coupling=True),
        posteriors.DiagonalNormal(),
    ),
    "vamp": (priors.Vamp(num_components=3), posteriors.DiagonalNormal()),
    "sphere": (priors.HypersphericalUniform(), posteriors.PowerSpherical()),
    "one-hot": (priors.Categorical(num_categories=2), posteriors.Categorical(num_categories=2)),
    "simplex": (
        priors.RelaxedCategorical(num_categories=2),
        posteriors.RelaxedCategorical(num_categories=2),
    ),
}
METHODS = {
    "importance": ImportanceSampling(150, enumerate=False),
    "summed": ImportanceSampling(20),
    "adaptive": ImportanceSampling(
        20, target_standard_error=0.1, max_particles=300, enumerate=False
    ),
    "defensive": ImportanceSampling(150, prior_share=0.3, enumerate=False),
    "refined": ImportanceSampling(20, refine_steps=5),
    "ais": AIS(2, 3, num_leapfrog=2),
    "ais-guide": AIS(2, 3, start="guide", schedule="adaptive", num_leapfrog=2),
}
REAL = {"normal", "full-rank", "low-rank", "mixture", "flows", "coupling", "vamp"}
ANY = ("importance", "summed", "adaptive", "defensive")  # methods that need no gradient in z


def cases():
    """Every pair with importance sampling, and every method with one pair; the rest of the product
    is slow.
    """
    for pair in PAIRS:
        for method in METHODS:
            if pair in REAL or method in ANY:
                quick = method == "importance" or pair == ("one-hot" if method in ANY else "normal")
                yield pytest.param(pair, method, marks=() if quick else pytest.mark.slow)


def points() -> torch.Tensor:
    codes = torch.arange(64)[:, None] >> torch.arange(6) & 1
    return codes[[3, 62, 17, 40, 9, 31, 52]].double()


def model_of(pair):
    torch.manual_seed(0)
    prior, posterior = PAIRS[pair]
    options = {"encoder": nets.MLP(8), "decoder": nets.MLP(8)}
    return pv.VAE(6, 4, prior=prior, posterior=posterior, **options).double()


def changes_nothing(model, guide, x, method, tolerance=1e-8, **options):
    def found(data, **more):
        evidence = pv.log_marginal(model, guide, data, method=method, **options, **more)
        return np.stack([evidence.log_marginal, evidence.num_particles])

    whole, close = found(x), {"rtol": tolerance, "atol": tolerance}
    np.testing.assert_allclose(found(x.flip(0))[:, ::-1], whole, err_msg="order", **close)
    np.testing.assert_allclose(found(x, memory_budget=1), whole, err_msg="budget", **close)
    some = found(torch.cat([x[1:4], x[1:4]]))
    np.testing.assert_allclose(some[:, :3], whole[:, 1:4], err_msg="subset and copies", **close)


@pytest.mark.parametrize(("pair", "method"), list(cases()))
def test_only_datum_and_seed_count(pair, method):
    vae = model_of(pair)
    changes_nothing(vae.model, vae.guide, points(), METHODS[method])


def single(num_data=9):
    """A model in float32 whose posteriors are narrow, and its data."""
    torch.manual_seed(0)
    vae = pv.VAE(64, 8, encoder=nets.MLP(64), decoder=nets.MLP(64))
    with torch.no_grad():
        for parameter in vae.likelihood.parameters():
            parameter *= 2.5
    return vae, (torch.rand(num_data, 64) < 0.3).float()


@pytest.mark.parametrize(
    "method",
    [
        AIS(8, 4, start="guide", num_leapfrog=3),
        AIS(8, 4, start="prior", schedule="adaptive", num_leapfrog=3),
    ],
    ids=["guide", "prior"],
)
def test_annealing_of_a_model_in_single_precision(method):
    """In float32, HMC made up to 1.3 nats out of the last digit; it runs in float64."""
    vae, x = single()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    changes_nothing(vae.model, vae.guide, x, method)
    for name, value in vae.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[name])


def test_annealing_does_not_feel_the_last_digit():
    """The warm-up once made up to 0.3 nats out of it, with as many temperatures as here."""
    oracle = LinearGaussian(shift=0.5, stretch=1.3)
    x, method = oracle.sample(8), AIS(10, 4, schedule="adaptive", num_leapfrog=4)
    # The random streams are made of the data in single precision, so they stay.
    one, other = (
        pv.log_marginal(oracle.model, oracle.guide, data, method=method).log_marginal
        for data in (x, x * (1 + 4e-16))
    )
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)


def test_annealing_in_the_precision_of_the_program_is_for_those_who_ask():
    vae, x = single(40)
    settings = {"start": "guide", "num_leapfrog": 3}
    single_, double = (
        pv.log_marginal(vae.model, vae.guide, x, method=AIS(8, 16, **settings, precision=precision))
        for precision in ("program", "double")
    )
    assert single_.settings["precision"] == "program"
    assert "precision" not in double.settings
    gap = (single_.log_marginal - double.log_marginal).values
    assert abs(gap.mean()) < 4 * gap.std() / 40**0.5


@pytest.mark.parametrize("method", ["importance", "refined", "adaptive"])
def test_other_methods_in_single_precision(method):
    """They lose no more than the digits that float32 rounds: about 1e-7 of 50 nats."""
    vae, x = single()
    changes_nothing(vae.model, vae.guide, x, METHODS[method], 1e-5)


def test_programs_run_in_double_precision_whatever_they_hold():
    """Parameters, constants, buffers, numbers in place, and data."""
    weight = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    layer = torch.nn.Linear(3, 3)
    batch = torch.ones(2, 3)
    exact = (batch.double() @ weight.double()) @ layer.weight.double().T + layer.bias.double()
    with torch.no_grad(), DoublePrecision():
        found = layer(batch @ weight)
        filled = torch.zeros(2, 3, dtype=torch.float32)
        filled += found
        filled[0] = 1.0
        joined = torch.cat([batch, torch.ones(1, 3)])
        drawn = dist.Normal(batch, weight[:2].abs()).sample()
    assert torch.equal(found, exact)
    assert filled.dtype == torch.float32
    assert filled[0].tolist() == [1, 1, 1]
    assert joined.dtype == drawn.dtype == torch.float64
    assert torch.ones(1).dtype == torch.float32
    assert layer.weight.dtype == torch.float32
    with pytest.raises(RuntimeError) as caught, DoublePrecision():
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert "AIS(precision='program')" in caught.value.__notes__[0]


def test_every_prior_and_posterior_is_there():
    for part, family in enumerate((priors, posteriors)):
        met = {type(pair[part]).__name__ for pair in PAIRS.values()}
        variants = {name for name in family.__all__ if name[0].isupper() and name != "Delta"}
        assert {name for name in variants if not name.startswith(family.__name__)} - met <= {
            "Prior",
            "Posterior",
            "Exemplar",  # a mixture of normals, once it holds data
        }


class Plates:
    """Codes of many values in an inner plate, or as elements of one site, with another site before
    it or not.
    """

    def __init__(self, inner: bool, before: bool):
        self.inner, self.before = inner, before

    def sites(self, x, logits):
        if self.inner:
            logits = logits.movedim(0, 1)
        if self.before:
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            logits = logits + 0.1 * z[(..., None) if self.inner else (..., None, None)]
        if not self.inner:
            return pyro.sample("c", dist.Categorical(logits=logits).to_event(1)).double()
        with pyro.plate("elements", 3, dim=-2):
            return pyro.sample("c", dist.Categorical(logits=logits)).double()

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            c = self.sites(x, x.new_zeros(len(x), 3, 50))
            if not self.inner:
                pyro.sample("x", dist.Normal(0.1 * c, 1.0).to_event(1), obs=x)
                return
            with pyro.plate("pixels", 3, dim=-2):
                pyro.sample("x", dist.Normal(0.1 * c, 1.0), obs=x.T)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            self.sites(x, x[:, :, None] * torch.linspace(-1, 1, 50, dtype=x.dtype))


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("before", [False, True])
def test_codes_of_many_values(inner, before):
    owner, nesting = Plates(inner, before), 2 if inner else 1
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    method = ImportanceSampling(150)
    changes_nothing(owner.model, owner.guide, x, method, max_plate_nesting=nesting)


@pytest.mark.parametrize("shape", [(5, 4), (5,), (5, 4, 2)])
def test_numbers_without_particles_belong_to_the_datum(shape):
    """A program that runs for one particle at a time draws tensors that have no dimension of
    particles.
    """
    keys = np.arange(5, dtype=np.uint64)
    with DatumStreams(keys, 9):
        whole = torch.randn(shape)
        codes = torch.multinomial(torch.ones(5, 30), 1)
    with DatumStreams(keys[::-1].copy(), 9):
        assert torch.equal(torch.randn(shape).flip(0), whole)
        assert torch.equal(torch.multinomial(torch.ones(5, 30), 1).flip(0), codes)
    with DatumStreams(keys[2:3], 9):
        assert torch.equal(torch.randn((1, *shape[1:])), whole[2:3])


class OneByOne:
    """Programs that do not broadcast over particles, with two sites, so that the guide runs for
    every particle.
    """

    weight = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def decode(self, z):
        if z.dim() != 2:
            raise ValueError(f"expected two dimensions, found {z.dim()}")
        return z @ self.weight.T

    def model(self, x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            b = pyro.sample("b", dist.Normal(a, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decode(b), 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.1 * x[:, :2], 1.0).to_event(1))
            pyro.sample("b", dist.Normal(a + 0 * self.decode(a)[:, :2], 1.0).to_event(1))


@pytest.mark.filterwarnings("ignore:.*does not broadcast")
@pytest.mark.parametrize("num_particles", [1, 150])
def test_programs_that_run_for_one_particle_at_a_time(num_particles):
    owner, method = OneByOne(), ImportanceSampling(num_particles)
    changes_nothing(owner.model, owner.guide, points()[:4], method)


@pytest.mark.parametrize(
    "draw",
    [
        lambda *size: torch.randn(*size),
        lambda *size: torch.randn(*size, generator=torch.Generator().manual_seed(3)),
        lambda *size: torch.rand(*size, generator=torch.Generator().manual_seed(3)),
        lambda *size: torch.rand_like(torch.ones(*size)),
        lambda *size: torch.normal(1.0, 2.0, size),
        lambda *size: torch.empty(*size).random_(),
        lambda *size: torch.empty(*size).random_(99),
        lambda *size: torch.empty(*size, dtype=torch.int32).random_(-9, 99),
        lambda *size: torch.randint(99, size),
        lambda *size: torch.randint(-9, 99, size),
        lambda *size: torch.randint(99, size, generator=torch.Generator().manual_seed(3)),
        lambda *size: torch.randint_like(torch.ones(*size), 99),
        lambda *size: torch.randint_like(torch.ones(*size), -9, 99),
        lambda *size: torch.bernoulli(torch.ones(*size), 0.5),
    ],
)
def test_every_kind_of_random_tensor_belongs_to_its_data(draw):
    """Data on their own get the numbers that they get among others, of the same dtype."""
    keys = data_keys((torch.arange(6.0),), 0)
    with DatumStreams(keys, 9):
        whole = draw(9, 6, 5)
    with DatumStreams(keys[2:4], 9):
        some = draw(9, 2, 5)
    assert torch.equal(whole[:, 2:4], some)
    assert whole.dtype == draw(9, 6, 5).dtype
    assert len(whole.unique()) > 1
