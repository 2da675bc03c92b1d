"""The exemplar prior: the mixture written out, leave-one-out, neighbours, and a table that follows
the weights.
"""

import copy
import math
import warnings

import pytest
import torch
from torch.testing import assert_close

import pyrovae as pv
from pyrovae import estimators, nets, posteriors, priors
from pyrovae.distributions.exemplars import IsotropicNormalMixture
from pyrovae.models import LeaveOneOut
from pyrovae.testing import quadrature


@pytest.fixture(autouse=True)
def exact():
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def data(num=12):
    return torch.rand(num, 5).round()


def exemplar_vae(x, latent_dim=2, **options):
    prior = priors.Exemplar(**options)
    vae = pv.VAE(5, latent_dim, prior=prior, encoder=nets.MLP(6), decoder=nets.MLP(6))
    with torch.no_grad():
        for parameter in vae.parameters():  # means far enough apart to matter
            parameter += 0.5 * torch.randn_like(parameter)
        vae.prior.raw_scale.fill_(math.log(0.4))
    vae.prior.initialize_from(x)
    return vae


def by_hand(vae, z, left_out=None):
    """log p(z), one exemplar at a time, without that of the same number as the datum."""
    scale = vae.prior.raw_scale.exp()
    means = vae.posterior(vae.prior.exemplars).mean
    scores = torch.stack(
        [torch.distributions.Normal(mean, scale).log_prob(z).sum(-1) for mean in means], -1
    )
    count = torch.full(z.shape[:-1], len(means), dtype=z.dtype)
    for b, i in enumerate([] if left_out is None else left_out.tolist()):
        if i >= 0:
            scores[..., b, i] = -math.inf
            count[..., b] -= 1
    return scores.logsumexp(-1) - count.log()


@pytest.mark.parametrize("gradients", [True, False])
def test_in_evaluation_it_is_the_mixture_around_all_means(gradients):
    vae, z = exemplar_vae(data()).eval(), torch.randn(3, 7, 2)
    with torch.set_grad_enabled(gradients):
        found = vae.prior().log_prob(z)
    assert_close(found, by_hand(vae, z))
    assert found.requires_grad == gradients
    same = priors.GaussianMixture(12).bind(latent_dim=2, data_shape=(5,))
    with torch.no_grad():
        same.locs.copy_(vae.posterior(vae.prior.exemplars).mean)
        scale = vae.prior.raw_scale.exp() - same.min_scale
        same.raw_scales.copy_(scale.expm1().log())
    assert_close(found, same().log_prob(z), check_dtype=False)


def test_a_datum_is_left_out_of_its_own_prior_and_of_no_other():
    x = data()
    vae, index = exemplar_vae(x, num_neighbours=None).train(), torch.tensor([3, 0, -1, 11])
    z = torch.randn(6, 4, 2)
    with vae.prior.leaving_out(index):
        left = vae.prior().expand((4,)).log_prob(z)
    assert_close(left, by_hand(vae, z, index))
    whole = by_hand(vae, z)
    assert_close(left[:, 2], whole[:, 2])
    assert (left - whole)[:, [0, 1, 3]].abs().min() > 1e-4


def test_of_a_part_of_the_data_those_are_left_out_that_are_exemplars():
    x = data(30)
    vae = exemplar_vae(x, num_exemplars=8, num_neighbours=None).train()
    rows = vae.prior.rows
    assert len(set(rows.tolist())) == 8
    assert_close(vae.prior.exemplars, x[rows])
    others = torch.tensor([i for i in range(30) if i not in set(rows.tolist())])
    index, z = torch.cat([rows, others]), torch.randn(2, 30, 2)
    numbers = torch.cat([torch.arange(8), -torch.ones(22, dtype=torch.long)])
    with vae.prior.leaving_out(index):
        assert_close(vae.prior().expand((30,)).log_prob(z), by_hand(vae, z, numbers))


def test_neighbours_are_the_nearest_and_bound_the_whole_from_below():
    vae, z = exemplar_vae(data(), num_neighbours=3).train(), torch.randn(2, 4, 2)
    index = torch.tensor([3, 0, -1, 11])
    with vae.prior.leaving_out(index):
        found = vae.prior().expand((4,)).log_prob(z)
    means, scale = vae.posterior(vae.prior.exemplars).mean, vae.prior.raw_scale.exp()
    squares = (z.unsqueeze(-2) - means).square().sum(-1)
    for b, i in enumerate(index.tolist()):
        if i >= 0:
            squares[:, b, i] = math.inf
    nearest = squares.sort(-1).values[..., :3]
    size = 12 - (index >= 0).to(z.dtype)
    wanted = (-0.5 * nearest / scale**2).logsumexp(-1) - size.log()
    wanted = wanted - 2 * (scale.log() + 0.5 * math.log(2 * math.pi))
    assert_close(found, wanted)
    assert (found <= by_hand(vae, z, index)).all()
    gradients = [
        torch.autograd.grad(v.sum(), list(vae.posterior.parameters())) for v in (found, wanted)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        assert_close(ours, theirs)
    assert max(g.abs().max() for g in gradients[0]) > 1e-3


def test_scores_are_the_same_in_pieces():
    locs, z = torch.randn(9, 2), torch.randn(5, 4, 2)
    options = {"left_out": torch.tensor([1, -1, 8, 0]), "num_neighbours": 3}
    for given in ({}, options):
        whole = IsotropicNormalMixture(locs, torch.tensor(0.5), **given).expand((4,))
        pieces = IsotropicNormalMixture(locs, torch.tensor(0.5), max_elements=27, **given)
        assert_close(pieces.expand((4,)).log_prob(z), whole.log_prob(z))


@pytest.mark.parametrize("training", [True, False])
def test_draws_are_around_the_means(training):
    vae = exemplar_vae(data()).train(training)
    with torch.no_grad():
        prior = vae.prior()
    z = prior.sample((20_000,))
    means = vae.posterior(vae.prior.exemplars).mean.detach()
    variance = means.var(0, correction=0) + vae.prior.raw_scale.exp().detach() ** 2
    # Five standard errors of a mean, and of a variance of kurtosis below 3.
    assert ((z.mean(0) - means.mean(0)).abs() < 5 * (variance / len(z)).sqrt()).all()
    assert_close(z.var(0), variance, rtol=5 * math.sqrt(2 / len(z)), atol=0.0)
    assert_close(prior.variance.detach(), variance)


def step(vae):
    optimizer = torch.optim.SGD(vae.parameters(), lr=0.5)
    estimators.ELBO().loss_and_grads(vae.model, vae.guide, data(8))
    optimizer.step()


def train_and_back(vae):
    vae.train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        step(vae)
    vae.eval()


def load(vae):
    vae.load_state_dict(exemplar_vae(data()).state_dict())


def start_again(vae):
    vae.prior.initialize_from(data(20))


def fit_a_little(vae):
    x = data(20)
    vae.prior.initialize_from(x)
    vae.fit(x, epochs=1, batch_size=10, lr=0.1, device="cpu")
    vae.eval()


@pytest.mark.parametrize("change", [step, train_and_back, load, start_again, fit_a_little])
def test_the_table_follows_the_weights(change):
    vae, z = exemplar_vae(data()).eval(), torch.randn(6, 2)
    with torch.no_grad():
        old = vae.prior().log_prob(z)
    change(vae)
    with torch.no_grad():
        new = vae.prior().log_prob(z)
        assert_close(new, by_hand(vae, z))
        assert (new - old).abs().max() > 1e-3


def test_a_captured_fit_is_the_eager_one():
    x, valid = data(40), data(10)
    rows = []
    for capture in (True, False):
        torch.manual_seed(1)
        vae = exemplar_vae(x, num_neighbours=4)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # each datum is left out
            history = vae.fit(
                x, valid=valid, epochs=3, batch_size=8, lr=1e-2, device="cpu", capture=capture
            )
        rows.append(torch.tensor([*history["train_bound"], *history["valid_bound"]]))
    assert_close(*rows)


def test_validation_counts_all_exemplars_at_the_weights_of_each_epoch():
    x, valid = data(40), data(10)
    vae = exemplar_vae(x, num_neighbours=2)
    history = vae.fit(x, valid=valid, epochs=2, batch_size=40, lr=1e-2, seed=3, device="cpu")
    assert history.best_epoch == 2
    vae.eval()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        bound = estimators.ELBO().bound(vae.model, vae.guide, valid).mean()
    assert history["valid_bound"][-1] == pytest.approx(bound.item())


def test_training_leaves_out_what_fit_counts():
    """One batch without an update: the bound is the one with each datum's own exemplar left out."""
    x = data(12)
    vae = exemplar_vae(x, num_neighbours=None)
    history = vae.fit(x, epochs=1, batch_size=12, lr=1e-12, shuffle=False, seed=5, device="cpu")
    programs = LeaveOneOut(vae.train())
    bounds = []
    for index in (torch.arange(12), torch.full((12,), -1)):
        own = estimators.ELBO(20_000).bound(programs.model, programs.guide, x, index)
        bounds.append(own.mean().item())
    assert bounds[0] < bounds[1] - 0.1
    with torch.random.fork_rng():
        torch.manual_seed(5)
        particles = estimators.ELBO().bound(programs.model, programs.guide, x, torch.arange(12))
    # The draws of a fit are not those of a single call: one draw each, so compare within errors.
    spread = 6 * (particles - bounds[0]).std().item() / math.sqrt(12)
    assert abs(history["train_bound"][0] - bounds[0]) < spread


def test_evidence_is_that_of_the_mixture():
    x = data(15)
    vae = exemplar_vae(x, latent_dim=1).eval()
    held_out = data(5)
    truth = quadrature(vae.prior, vae.likelihood, held_out)
    # Draws from the prior, too: the posterior has modes that this guide leaves out.
    method = pv.ImportanceSampling(8_000, prior_share=0.5)
    evidence = pv.log_marginal(vae.model, vae.guide, held_out, method=method)
    error = evidence.log_marginal.values - truth.detach().numpy()
    assert (abs(error) < 5 * evidence.standard_error.values + 1e-6).all()


def test_weights_bring_their_exemplars_along():
    vae = exemplar_vae(data(30), num_exemplars=8).eval()
    again = exemplar_vae(data(3)).eval()
    again.load_state_dict(vae.state_dict())
    z = torch.randn(6, 2)
    assert_close(again.prior().log_prob(z), vae.prior().log_prob(z))
    copied = copy.deepcopy(vae)
    with torch.no_grad():
        nets.last_bias(vae.posterior.encoder).add_(1.0)
        assert (copied.prior().log_prob(z) - vae.prior().log_prob(z)).abs().max() > 1e-3
        assert_close(copied.prior().log_prob(z), by_hand(copied, z))


def test_training_without_numbers_is_told():
    vae = exemplar_vae(data()).train()
    with pytest.warns(UserWarning, match="overfits"):
        estimators.ELBO().loss_and_grads(vae.model, vae.guide, data(4))


def test_wrong_use_is_named():
    for wrong in ({"num_exemplars": 0}, {"num_neighbours": 0}, {"scale": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            priors.Exemplar(**wrong)
    with pytest.raises(ValueError, match="hands it one"):
        priors.Exemplar().bind(latent_dim=2, data_shape=(5,))
    fresh = pv.VAE(5, 2, prior=priors.Exemplar())
    with pytest.raises(ValueError, match="seen no data"):
        fresh.model(data())
    with pytest.raises(ValueError, match="found 3 data"):
        pv.VAE(5, 2, prior=priors.Exemplar(9)).prior.initialize_from(data(3))
    with pytest.raises(ValueError, match="mixture of normals"):
        pv.VAE(5, 2, prior=priors.Exemplar(), posterior=posteriors.Delta())
    with pytest.raises(ValueError, match="closed form"):
        pv.VAE(5, 2, prior=priors.Exemplar(), posterior=posteriors.Flow(1))
    with pytest.raises(TypeError, match="leaves data out"):
        LeaveOneOut(pv.VAE(5, 2))
    vae = exemplar_vae(data(12))
    with pytest.raises(ValueError, match="other data"):
        vae.fit(data(13), epochs=1)
    programs = LeaveOneOut(vae)
    with pytest.raises(ValueError, match="one number for each datum"):
        programs.check(data(4), torch.arange(3))
    with pytest.raises(TypeError, match="integers"):
        programs.check(data(4), torch.rand(4))
