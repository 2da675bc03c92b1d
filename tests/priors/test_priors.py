"""What is particular to a prior: the pseudo-inputs of a Vamp, responsibilities, arguments, and
which posteriors fit.

That every prior is a law is tested with the posteriors, in
``tests/distributions/test_latent_laws.py``.
"""

import copy
import math

import pyro.distributions as dist
import pytest
import torch
from torch.testing import assert_close

import pyrovae as pv
from pyrovae import likelihoods, nets, posteriors, priors
from pyrovae.distributions.mixture import ComponentMixture

MIXED = {
    "DiagonalNormal": posteriors.DiagonalNormal(),
    "FullRankNormal": posteriors.FullRankNormal(),
    "LowRankNormal": posteriors.LowRankNormal(rank=1),
    "Flow": posteriors.Flow(num_transforms=2, hidden=(8,), context=3),
    "Mixture": posteriors.Mixture(num_components=2),
    "PowerSpherical": posteriors.PowerSpherical(),
    "Categorical": posteriors.Categorical(num_categories=2),
    "RelaxedCategorical": posteriors.RelaxedCategorical(num_categories=2),
}


@pytest.fixture(autouse=True)
def exact():
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def vamp_vae(posterior=None, **options):
    prior = priors.Vamp(**{"num_components": 5, **options})
    return pv.VAE(
        (3,), 4, prior=prior, posterior=posterior, encoder=nets.MLP(6), decoder=nets.MLP(6)
    )


def by_hand(vae, z):
    """log p(z) = logsumexp_c log q(z | u_c) - log C, one component at a time."""
    inputs = vae.prior.raw_inputs.clamp(0, 1)
    scores = [vae.posterior(u).log_prob(z) for u in inputs]
    return torch.stack(scores).logsumexp(0) - math.log(len(inputs))


def test_every_posterior_with_a_density_is_mixed_here():
    assert set(MIXED) == set(posteriors.__all__) - {"Posterior", "Delta"}


@pytest.mark.parametrize("name", MIXED)
def test_vamp_is_the_mean_of_posteriors(name):
    vae = vamp_vae(MIXED[name])
    z = vae.posterior(torch.rand(6, 3)).sample((2,))
    assert_close(vae.prior().log_prob(z.clone()), by_hand(vae, z.clone()))
    assert vae.prior.space == vae.posterior.space


def test_component_mixture_is_the_same_in_pieces():
    normals = dist.Normal(torch.randn(5, 2), 0.5).to_event(1)
    whole, pieces = ComponentMixture(normals), ComponentMixture(normals, max_elements=30)
    z = torch.randn(7, 3, 2)
    assert_close(pieces.log_prob(z), whole.log_prob(z))
    draws = pieces.sample((4000,))
    assert draws.shape == (4000, 2)
    spread = 5 * draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - normals.mean.mean(0)).abs() < spread).all()


@pytest.mark.parametrize("posterior", [posteriors.DiagonalNormal(), posteriors.FullRankNormal()])
def test_vamp_draws_where_its_posteriors_are(posterior):
    vae = vamp_vae(posterior)
    with torch.no_grad():
        nets.last_bias(vae.posterior.encoder)[: vae.latent_dim] += torch.tensor(
            [20.0, -20.0, 0.0, 7.0]
        )
    components = vae.posterior(vae.prior.pseudo_inputs())
    mean = components.mean.mean(0)
    variance = (components.variance + components.mean.square()).mean(0) - mean.square()
    z = vae.prior().sample((4000,))
    assert ((z.mean(0) - mean).abs() < 5 * (variance / len(z)).sqrt()).all()
    assert mean[0] > 15
    assert mean[1] < -15
    # A second moment errs by about sqrt(kurtosis / n) < 5%; five of these.
    assert_close(z.var(0), variance.detach(), rtol=0.2, atol=0.0)


def step(vae):
    optimizer = torch.optim.SGD(vae.parameters(), lr=0.5)
    pv.estimators.ELBO().loss_and_grads(vae.model, vae.guide, torch.rand(8, 3).round())
    optimizer.step()


def load(vae):
    vae.load_state_dict(vamp_vae().state_dict())


def train_and_back(vae):
    vae.train()
    step(vae)
    vae.eval()


def move_inputs(vae):
    with torch.no_grad():
        vae.prior.raw_inputs.mul_(0.5)


def start_at_data(vae):
    vae.prior.initialize_from(torch.rand(9, 3))


@pytest.mark.parametrize("change", [step, load, train_and_back, move_inputs, start_at_data])
def test_vamp_keeps_its_components_only_until_parameters_change(change):
    vae, z = vamp_vae().eval(), torch.randn(6, 4)
    with torch.no_grad():
        before = vae.prior()
        assert vae.prior() is before
        old = before.log_prob(z)
    change(vae)
    with torch.no_grad():
        new = vae.prior().log_prob(z)
        assert_close(new, by_hand(vae, z))
        assert (new - old).abs().max() > 1e-3


def test_vamp_in_eval_mode_still_gives_gradients():
    vae, z = vamp_vae().eval(), torch.randn(6, 4)
    with torch.no_grad():
        vae.prior()
    vae.prior().log_prob(z).sum().backward()
    found = vae.prior.raw_inputs.grad.clone()
    vae.zero_grad()
    by_hand(vae, z).sum().backward()
    assert found.abs().max() > 0
    assert_close(found, vae.prior.raw_inputs.grad)


def test_vamp_starts_at_different_data():
    vae, data = vamp_vae(), torch.rand(6, 3)
    vae.prior.initialize_from(data)
    matches = (vae.prior.pseudo_inputs()[:, None] == data).all(-1)
    assert (matches.sum(1) == 1).all()
    assert (matches.sum(0) <= 1).all()
    with pytest.raises(ValueError, match="5 pseudo-inputs, found 4 data"):
        vae.prior.initialize_from(data[:4])
    with pytest.raises(ValueError, match=r"bounds=\(0.0, 1.0\), found data from"):
        vae.prior.initialize_from(2 * data + 1)


def at_data(vae, data):
    return (vae.prior.pseudo_inputs()[:, None] == data).all(-1).any(1).all()


def test_vamp_that_asks_for_data_is_started_with_its_vae():
    data = (torch.rand(30, 3) < 0.5).double() * 0.5 + 0.25
    declared = priors.Vamp(5, start="data")
    vae = pv.VAE(
        (3,), 4, prior=declared, likelihood=likelihoods.Gaussian(), decoder=nets.MLP()
    ).double()
    assert repr(vae.prior) == "Vamp(num_components=5, start='data')"
    for program in (vae.model, vae.prior):  # a random start would pass unnoticed
        with pytest.raises(
            ValueError, match=r"has seen no data yet. Before training call vae.initialize_from"
        ):
            program(*[data] * (program == vae.model))
    assert vae.initialize_from(data) is vae
    assert at_data(vae, data)
    assert_close(vae.likelihood.decoder.net[0].bias.detach(), data.mean(0))
    vae.model(data)
    # Weights that are loaded have been started, wherever that was.
    other = pv.VAE(
        (3,), 4, prior=declared, likelihood=likelihoods.Gaussian(), decoder=nets.MLP()
    ).double()
    other.load_state_dict(vae.state_dict())
    assert_close(other.prior().log_prob(torch.ones(4)), vae.prior().log_prob(torch.ones(4)))
    assert at_data(copy.deepcopy(vae), data)
    copy.deepcopy(vae).model(data)


def test_every_shape_starts_its_vamp_and_its_bias_at_data():
    data, labels = (torch.rand(30, 3) < 0.7).double(), torch.arange(30) % 2
    small = {"decoder": nets.MLP(), "encoder": nets.MLP(4)}
    deep = pv.HierarchicalVAE((3,), 2, prior=priors.Vamp(5, start="data"), **small).double()
    assert at_data(deep.initialize_from(data), data)
    given = pv.ConditionalVAE((3,), 2, 2, **small).double().initialize_from((data, labels))
    clusters = pv.ClusteringVAE((3,), 2, 3, **small).double().initialize_from(data)
    for vae in (deep, given, clusters):
        means = vae.likelihood.decoder.net[0].bias.detach().sigmoid()
        assert_close(means, data.mean(0))


def test_vamp_is_left_alone_unless_it_asks():
    vae, data = vamp_vae(), torch.rand(9, 3)
    before = vae.prior.raw_inputs.detach().clone()
    vae.initialize_from(data.round())
    assert torch.equal(vae.prior.raw_inputs, before)
    with pytest.raises(ValueError, match="'random' or 'data', found 'mean'"):
        priors.Vamp(start="mean")


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-2.0, 3.0), (0.0, math.inf), None])
def test_vamp_keeps_pseudo_inputs_within_bounds(bounds):
    prior = vamp_vae(bounds=bounds).prior
    low, high = bounds or (-math.inf, math.inf)
    assert ((prior.raw_inputs >= low) & (prior.raw_inputs <= high)).all()
    with torch.no_grad():
        prior.raw_inputs.copy_(torch.linspace(-50, 50, 15).reshape(5, 3))
    assert_close(prior.pseudo_inputs(), torch.linspace(-50, 50, 15).clamp(low, high).reshape(5, 3))


def test_responsibilities_are_bayes_rule():
    prior = priors.GaussianMixture(num_components=3).bind(latent_dim=2, data_shape=(3,))
    with torch.no_grad():
        prior.logits.copy_(torch.tensor([0.5, -1.0, 0.2]))
        prior.raw_scales.add_(torch.randn(3, 2))
    z, scales = torch.randn(5, 2), torch.nn.functional.softplus(prior.raw_scales) + 1e-3
    joint = (
        prior.logits.softmax(0) * dist.Normal(prior.locs, scales).log_prob(z[:, None]).sum(-1).exp()
    )
    assert_close(prior.responsibilities(z), joint / joint.sum(-1, keepdim=True))


@pytest.mark.parametrize(
    ("prior", "posterior", "alternative"),
    [
        (priors.StandardNormal(), posteriors.PowerSpherical(), "HypersphericalUniform"),
        (priors.HypersphericalUniform(), posteriors.DiagonalNormal(), "PowerSpherical"),
        (priors.Laplace(), posteriors.Categorical(), "DiagonalNormal"),
        (priors.Categorical(), posteriors.RelaxedCategorical(), "RelaxedCategorical"),
        (priors.Flow(hidden=(4,)), posteriors.RelaxedCategorical(), "Mixture"),
        (priors.Vamp(), posteriors.Delta(), "DiagonalNormal"),
    ],
)
def test_a_pair_on_two_spaces_is_refused_with_what_would_fit(prior, posterior, alternative):
    with pytest.raises(ValueError, match=alternative):
        pv.VAE((3,), 4, prior=prior, posterior=posterior)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: priors.GaussianMixture(0), "num_components >= 1, found 0"),
        (lambda: priors.GaussianMixture(spread=-1), "found -1"),
        (lambda: priors.GaussianMixture(min_scale=1.0), r"min_scale < 1"),
        (lambda: priors.Laplace(scale=0), "scale must be finite and positive"),
        (lambda: priors.StudentT(df=math.inf), "df must be finite and positive"),
        (lambda: priors.Flow(transform="cubic"), "'affine' or 'spline', found 'cubic'"),
        (lambda: priors.Flow(num_transforms=0), "num_transforms >= 1"),
        (lambda: priors.Vamp(0), "num_components >= 1"),
        (lambda: priors.Vamp(bounds=(1, 0)), "low < high"),
        (lambda: priors.Vamp().bind(latent_dim=2, data_shape=(3,)), "hands it one"),
        (lambda: priors.RelaxedCategorical(temperature=0), "positive, found 0"),
        (
            lambda: priors.Categorical(3).bind(latent_dim=4, data_shape=(3,)),
            "latent_dim=4 and num_categories=3",
        ),
        (
            lambda: priors.HypersphericalUniform().bind(latent_dim=1, data_shape=(3,)),
            "at least 2, found 1",
        ),
    ],
)
def test_arguments_that_make_no_prior_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
