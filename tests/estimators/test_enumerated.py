"""EnumELBO against sums by hand, exact posteriors, and Pyro's own enumeration."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.gradients import gradient
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import pyrovae as pv
from pyrovae import nets
from pyrovae.estimators import ELBO, Capacity, EnumELBO, FreeBits
from pyrovae.handlers import KLScale
from pyrovae.particles import every_value
from pyrovae.svi import Step


def test_bound_and_gradient_are_the_sums_by_hand(mixture):
    oracle, x = mixture
    log_q = oracle.log_guide(x)
    exact = (log_q.exp() * (oracle.log_joint(x) - log_q)).sum(0)
    assert_close(EnumELBO().bound(oracle.model, oracle.guide, x), exact.detach())
    found = EnumELBO().differentiable_loss(oracle.model, oracle.guide, x)
    assert_close(gradient(oracle, found), gradient(oracle, -exact.sum()))


class Components(nn.Module):
    """c ~ p(c), z | c ~ N(m_c, 1), x | z ~ N(z, s^2); the guide is the exact posterior."""

    def __init__(self, shift=0.0):
        super().__init__()
        kind = {"dtype": torch.float64}
        self.logits = nn.Parameter(torch.tensor([0.2, -0.4, 0.9], **kind))
        self.means = nn.Parameter(torch.tensor([-2.0, 0.5, 3.0], **kind))
        self.shift = nn.Parameter(torch.tensor(shift, **kind))
        self.variance = 0.7

    def marginals(self, x):
        width = (1 + self.variance) ** 0.5
        return self.logits.log_softmax(0) + dist.Normal(self.means, width).log_prob(x[:, None])

    def model(self, x):
        pyro.module("components", self)
        with pyro.plate("data", len(x), dim=-1):
            c = pyro.sample("c", dist.Categorical(logits=self.logits))
            z = pyro.sample("z", dist.Normal(self.means[c], 1.0))
            pyro.sample("x", dist.Normal(z, self.variance**0.5), obs=x)

    def guide(self, x):
        pyro.module("components", self)
        with pyro.plate("data", len(x), dim=-1):
            c = pyro.sample("c", dist.Categorical(logits=self.marginals(x)))
            mean = (self.variance * self.means[c] + x) / (1 + self.variance) + self.shift
            pyro.sample("z", dist.Normal(mean, (self.variance / (1 + self.variance)) ** 0.5))


X = torch.tensor([-1.5, 0.1, 0.9, 4.0], dtype=torch.float64)


@pytest.mark.parametrize("num_particles", [1, 3])
def test_an_exact_guide_gives_log_p_for_any_draws(num_particles):
    module = Components()
    bound = EnumELBO(num_particles).bound(module.model, module.guide, X)
    assert_close(bound, module.marginals(X).logsumexp(1).detach())


def test_beta_scales_the_whole_kl():
    """KL(q || p) in closed form: that of the components, and that of z within each."""
    module = Components(shift=0.4)
    share = module.marginals(X).softmax(1)
    mean = (module.variance * module.means + X[:, None]) / (1 + module.variance) + module.shift
    q = dist.Normal(mean, (module.variance / (1 + module.variance)) ** 0.5)
    within = torch.distributions.kl_divergence(q, dist.Normal(module.means, 1.0))
    outer = share.log() - module.logits.log_softmax(0)
    kl = (share * (outer + within)).sum(1).detach()
    model, guide = KLScale(3.0)(module.model), KLScale(3.0)(module.guide)
    estimator, bounds = EnumELBO(20_000), []
    for pair in ((module.model, module.guide), (model, guide)):
        torch.manual_seed(0)
        bounds.append(estimator.bound(*pair, X))
    particles = estimator.particles(module.model, module.guide, X)
    # Over draws, the sum over c has a standard deviation of up to 0.74, which 20,000 draws divide
    # by 141: these are six errors.
    assert_close(estimator.kl(particles), kl, rtol=0, atol=0.03)
    assert_close(bounds[1] - bounds[0], -2 * kl, rtol=0, atol=0.06)


def layers(x):
    """One discrete site in an inner plate, another whose probabilities depend on its values."""
    probs = torch.tensor([[0.2, 0.8], [0.6, 0.4]], dtype=x.dtype)
    return probs, torch.linspace(-1, 1, 8, dtype=x.dtype).reshape(4, 2).softmax(-1)


def nested_guide(x):
    table = layers(x)[1].flip(0)
    tilt = pyro.param("tilt", lambda: torch.tensor([0.3, -0.2], dtype=x.dtype))
    with pyro.plate("data", len(x), dim=-1):
        with pyro.plate("parts", 2, dim=-2):
            a = pyro.sample("a", dist.Bernoulli(torch.sigmoid(tilt[:, None] * x)))
        places = (2 * a[..., :1, :] + a[..., 1:, :]).long()
        pyro.sample("b", dist.Categorical(table[places]))


def test_sites_in_plates_and_sites_that_depend_on_others():
    """By hand: a sum over the 2 x 2 x 2 joint values."""
    pyro.clear_param_store()

    def model(x):
        probs, table = layers(x)
        with pyro.plate("data", len(x), dim=-1):
            with pyro.plate("parts", 2, dim=-2):
                a = pyro.sample("a", dist.Bernoulli(probs[0, 1]))
            first, second = a[..., :1, :].long(), a[..., 1:, :].long()
            b = pyro.sample("b", dist.Categorical(table[2 * first + second]))
            pyro.sample("x", dist.Normal((first - second + 2 * b).to(x), 1.0), obs=x)

    x = X[:3]
    bound = EnumELBO().bound(model, nested_guide, x)
    probs, table = layers(x)
    turned, tilt = table.flip(0), torch.tensor([0.3, -0.2], dtype=x.dtype)
    expected = torch.zeros_like(x)
    for i in range(2):
        for j in range(2):
            for b in range(2):
                q = dist.Bernoulli(torch.sigmoid(tilt[0] * x)).log_prob(torch.tensor(float(i)))
                q = q + dist.Bernoulli(torch.sigmoid(tilt[1] * x)).log_prob(torch.tensor(float(j)))
                q = q + turned[2 * i + j, b].log()
                p = probs[0, i].log() + probs[0, j].log() + table[2 * i + j, b].log()
                p = p + dist.Normal(float(i - j + 2 * b), 1.0).log_prob(x)
                expected = expected + q.exp() * (p - q)
    assert_close(bound, expected)


@pytest.fixture
def labelled():
    """A semi-supervised model with data of which some have a label."""
    torch.manual_seed(0)
    mlp = nets.MLP(8)
    vae = pv.ConditionalVAE(
        (6,), latent_dim=2, condition_dim=3, encoder=mlp, decoder=mlp, joint=mlp, classifier=mlp,
        classification_weight=5.0,
    ).double()  # fmt: skip
    y = torch.arange(12) % 3
    x = F.one_hot(y, 3).double().repeat_interleave(2, 1)
    return vae, x, torch.where(torch.arange(12) < 6, y, -1)


def test_pyros_enumeration_has_the_same_loss_and_gradients(labelled):
    """At the same draws: both fill a tensor over values and data by one call."""
    vae, x, y = labelled
    stock = TraceEnum_ELBO(max_plate_nesting=1)
    found = []
    for estimator in (EnumELBO(), stock):
        vae.zero_grad()
        torch.manual_seed(1)
        loss = estimator.loss_and_grads(vae.joint_model, vae.joint_guide, x, y)
        grads = [p.grad.clone() for p in vae.parameters() if p.grad is not None]
        found.append((loss, torch.cat([g.flatten() for g in grads])))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-9)
    assert_close(found[0][1], found[1][1])


def test_a_subsampled_plate_scales_the_sum_over_data():
    module = Components(shift=0.4)

    def guide(x):
        with pyro.plate("data", 3 * len(x), dim=-1, subsample=torch.arange(len(x))):
            pyro.sample("c", dist.Categorical(logits=module.marginals(x)))

    def model(x):
        with pyro.plate("data", 3 * len(x), dim=-1, subsample=torch.arange(len(x))):
            c = pyro.sample("c", dist.Categorical(logits=module.logits))
            pyro.sample("x", dist.Normal(module.means[c], 1.0), obs=x)

    bound = EnumELBO().bound(model, guide, X)
    assert EnumELBO().loss(model, guide, X) == pytest.approx(-3 * bound.sum().item())
    stock = TraceEnum_ELBO(max_plate_nesting=1).loss(model, config_enumerate(guide), X)
    assert EnumELBO().loss(model, guide, X) == pytest.approx(stock)


def test_listing_draws_nothing():
    module = Components()
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    values = every_value(module.guide, 2, (X,))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert values["c"].tolist() == [[c] * 4 for c in (0, 0, 1, 1, 2, 2)]


def test_without_discrete_sites_it_is_the_elbo(spoilt):
    oracle, x = spoilt
    torch.manual_seed(0)
    bound = EnumELBO(3).bound(oracle.model, oracle.guide, x)
    torch.manual_seed(0)
    assert_close(bound, ELBO(3).bound(oracle.model, oracle.guide, x))


def test_fit_captures_it_and_reports_both_terms(labelled):
    vae, x, y = labelled
    steps = []
    for capture in (True, False):
        torch.manual_seed(0)
        twin = pv.ConditionalVAE(
            (6,), latent_dim=2, condition_dim=3, encoder=nets.MLP(8), decoder=nets.MLP(8),
            joint=nets.MLP(8), classifier=nets.MLP(8),
        ).double()  # fmt: skip
        history = pv.fit(
            twin.joint_model, twin.joint_guide, (x, y), estimator=EnumELBO(), epochs=3,
            batch_size=5, seed=0, capture=capture, progress=False,
        )  # fmt: skip
        steps.append(torch.cat([p.detach().flatten() for p in twin.parameters()]))
        difference = history["reconstruction"] - history["kl"] - history["train_bound"]
        assert abs(difference).max() < 1e-4
    assert_close(steps[0], steps[1])
    parameters = list(vae.parameters())
    step = Step(
        vae.joint_model, vae.joint_guide, EnumELBO(), torch.optim.Adam(parameters), parameters
    )
    step(x, y)
    assert step.compiled.reason is None


def pair(site, law):
    """Programs with one latent site."""

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample(site, law().expand((len(x),)))

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            value = pyro.sample(site, law().expand((len(x),)))
            pyro.sample("x", dist.Normal(value.to(x), 1.0), obs=x)

    return model, guide


def test_what_cannot_be_summed_is_refused():
    rate = torch.tensor(2.0, dtype=torch.float64)
    with pytest.raises(ValueError, match="Site 'n' cannot be summed: its values are not finitely"):
        EnumELBO().bound(*pair("n", lambda: dist.Poisson(rate)), X)
    law = dist.Normal

    class Fixed(law):
        has_rsample = False

    with pytest.raises(ValueError, match="EnumELBO differentiates through 'z'"):
        EnumELBO().bound(*pair("z", lambda: Fixed(rate, rate)), X)
    masked = [poutine.mask(p, X > 0) for p in pair("b", lambda: dist.Bernoulli(rate / 4))]
    with pytest.raises(ValueError, match="Site 'b' cannot be summed: it is masked"):
        EnumELBO().bound(*masked, X)
    many = [f"b{i}" for i in range(17)]

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            for name in many:
                pyro.sample(name, dist.Bernoulli(rate / 4))

    with pytest.raises(ValueError, match="131072 joint values; at most 65536"):
        EnumELBO().bound(guide, guide, X)


@pytest.mark.parametrize("wrapper", [FreeBits, Capacity])
def test_wrappers_of_drawn_kl_refuse_it(wrapper):
    with pytest.raises(ValueError, match="sums values that are not drawn"):
        wrapper(EnumELBO())
