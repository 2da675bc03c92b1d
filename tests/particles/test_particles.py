"""Particles: per-datum weights of any model and guide, and the gradient that runs through the
draws.
"""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.reparam import LocScaleReparam
from torch import nn
from torch.testing import assert_close

from pyrovae.handlers import KLScale
from pyrovae.particles import draw, simulate
from pyrovae.testing import DiscreteMixture, LinearGaussian


class TwoLayers(nn.Module):
    """z2 -> z1 -> x, with a guide that goes the other way; everything Gaussian
    and one-dimensional.
    """

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([0.8, 1.3], dtype=torch.float64))
        self.phi = nn.Parameter(torch.tensor([0.6, -0.1, 0.4, 0.2], dtype=torch.float64))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
            z1 = pyro.sample("z1", dist.Normal(self.theta[0] * z2, 0.7))
            pyro.sample("x", dist.Normal(self.theta[1] * z1, 0.5), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(self.phi[0] * x, self.phi[1].exp()))
            pyro.sample("z2", dist.Normal(self.phi[2] * z1, self.phi[3].exp()))


@pytest.fixture
def x():
    return torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64)


def test_weights_are_the_sum_over_sites_for_each_datum(x):
    net = TwoLayers()
    torch.manual_seed(0)
    found = draw(net.model, net.guide, 4, (x,))
    z1, z2 = found.latents["z1"].value, found.latents["z2"].value
    theta, phi = net.theta, net.phi
    log_p = (
        dist.Normal(0.0, 1.0).log_prob(z2)
        + dist.Normal(theta[0] * z2, 0.7).log_prob(z1)
        + dist.Normal(theta[1] * z1, 0.5).log_prob(x)
    )
    log_q = dist.Normal(phi[0] * x, phi[1].exp()).log_prob(z1) + dist.Normal(
        phi[2] * z1, phi[3].exp()
    ).log_prob(z2)
    assert found.log_weights.shape == (4, 3)
    assert_close(found.log_p, log_p)
    assert_close(found.log_q, log_q)


def test_cut_particles_carry_the_same_numbers(x):
    net = TwoLayers()
    results = []
    for draws in ("attached", "detached"):
        torch.manual_seed(0)
        results.append(draw(net.model, net.guide, 4, (x,), draws=draws))
    assert_close(results[0].log_weights, results[1].log_weights)
    assert results[1].latents["z1"].value.is_leaf


def test_pathwise_plus_scores_is_the_whole_gradient(x):
    """d/dphi of sum log w splits into the path through both layers and the direct score of q."""
    net = TwoLayers()
    torch.manual_seed(0)
    whole = draw(net.model, net.guide, 5, (x,))
    (expected,) = torch.autograd.grad(whole.log_weights.sum(), net.phi)
    torch.manual_seed(0)
    detached = draw(net.model, net.guide, 5, (x,), draws="detached")
    surrogate = detached.pathwise(detached.log_weights.sum()) - detached.log_q.sum()
    (found,) = torch.autograd.grad(surrogate, net.phi)
    assert_close(found, expected)


def test_pathwise_alone_against_finite_differences(x):
    """The draws move with phi; the density's own phi stays where it was."""
    net = TwoLayers()
    phi, step = net.phi.detach(), 1e-6
    torch.manual_seed(0)
    detached = draw(net.model, net.guide, 5, (x,), draws="detached")
    z1, z2 = (detached.latents[name].value.detach() for name in ("z1", "z2"))
    eps = (z1 - phi[0] * x) / phi[1].exp(), (z2 - phi[2] * z1) / phi[3].exp()

    def value(phi, frozen):
        z1 = phi[0] * x + phi[1].exp() * eps[0]
        z2 = phi[2] * z1 + phi[3].exp() * eps[1]
        log_q = dist.Normal(frozen[0] * x, frozen[1].exp()).log_prob(z1)
        log_q = log_q + dist.Normal(frozen[2] * z1, frozen[3].exp()).log_prob(z2)
        theta = net.theta.detach()
        log_p = dist.Normal(0.0, 1.0).log_prob(z2) + dist.Normal(theta[0] * z2, 0.7).log_prob(z1)
        return (log_p + dist.Normal(theta[1] * z1, 0.5).log_prob(x) - log_q).exp().sum()

    expected = torch.stack(
        [
            (value(phi + step * e, phi) - value(phi - step * e, phi)) / (2 * step)
            for e in torch.eye(4, dtype=x.dtype)
        ]
    )
    (found,) = torch.autograd.grad(detached.pathwise(detached.log_weights.exp().sum()), net.phi)
    assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_pathwise_without_gradients_is_zero(x):
    net = TwoLayers()
    with torch.no_grad():
        detached = draw(net.model, net.guide, 2, (x,), draws="detached")
        assert detached.pathwise(detached.log_weights.sum()) == 0


def test_subsampling_scale_stays_outside(x):
    oracle = LinearGaussian(data_dim=1, latent_dim=1)

    def sub(program):
        def wrapped(x):
            with pyro.plate("data", 30, subsample=torch.arange(len(x)), dim=-1):
                return program(x)

        return wrapped

    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(1, dtype=x.dtype), 1.0).to_event(1))
        pyro.sample(
            "x",
            dist.Normal(z @ oracle.weight.T + oracle.bias, oracle.log_noise.exp()).to_event(1),
            obs=x,
        )

    def guide(x):
        pyro.sample(
            "z", dist.Normal(x @ oracle.gain.T + oracle.offset, oracle.log_scale.exp()).to_event(1)
        )

    data = x.reshape(3, 1)
    found = draw(sub(model), sub(guide), 6, (data,))
    assert found.scale == 10.0
    assert not found.scaled
    assert_close(found.log_weights, oracle.log_prob(data).expand(6, 3))  # the exact guide


def test_inner_plates_are_summed_into_their_datum():
    x = torch.tensor([[0.5, 1.0, -0.3], [0.1, -0.2, 0.9]], dtype=torch.float64)  # (inner, B)

    def model(x):
        with pyro.plate("data", x.shape[-1], dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
            with pyro.plate("views", x.shape[0], dim=-2):
                pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", x.shape[-1], dim=-1):
            pyro.sample("z", dist.Normal(x.mean(0), 0.4))

    found = draw(model, guide, 4, (x,), max_plate_nesting=2)
    z = found.latents["z"].value.reshape(4, 3)
    assert_close(found.log_likelihood, dist.Normal(z[:, None], 0.5).log_prob(x).sum(1))
    with pytest.raises(ValueError, match="max_plate_nesting=2 or more"):
        draw(model, guide, 4, (x,))


def test_masks_count(x):
    mask = torch.tensor([True, False, True])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
            pyro.sample("x", dist.Normal(z, 0.5).mask(mask), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)), poutine.mask(mask=mask):
            pyro.sample("z", dist.Normal(x, 1.0))

    found = draw(model, guide, 2, (x,))
    assert (found.log_likelihood[:, 1] == 0).all()
    assert (found.log_q[:, 1] == 0).all()
    assert (found.log_likelihood[:, 0] != 0).all()


def test_scaled_programs_are_seen(x):
    net = TwoLayers()
    for model, guide, scaled in (
        (net.model, net.guide, False),
        (KLScale(1.0)(net.model), KLScale(1.0)(net.guide), False),
        (KLScale(0.5)(net.model), KLScale(0.5)(net.guide), True),
        (KLScale(torch.tensor(1.0))(net.model), KLScale(torch.tensor(1.0))(net.guide), True),
        (poutine.scale(net.model, 2.0), poutine.scale(net.guide, 2.0), True),
    ):
        assert draw(model, guide, 2, (x,)).scaled is scaled


def test_discrete_latents_are_scored():
    oracle = DiscreteMixture()
    x = oracle.sample(5)
    found = draw(oracle.model, oracle.guide, 7, (x,))
    c = found.latents["c"].value
    assert_close(found.log_p, oracle.log_joint(x).gather(0, c))
    assert_close(found.log_q, oracle.log_guide(x).gather(0, c))
    assert not found.latents["c"].reparameterized


def _guide(x, *, name="z"):
    with pyro.plate("data", len(x)):
        return pyro.sample(name, dist.Normal(x, 1.0))


def _model(x, *, name="z"):
    with pyro.plate("data", len(x)):
        z = pyro.sample(name, dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def _global_guide(x):
    pyro.sample("z", dist.Normal(x.mean(), 1.0))


def _global_model(x):
    z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def _observed_model(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(x, 1.0), obs=x)


@pytest.mark.parametrize(
    ("model", "guide", "message"),
    [
        (lambda x: _model(x, name="w"), _guide, r"\['w'\] are in the model but not in the guide"),
        (_global_model, _global_guide, "'z' lies outside the data plate"),
        (_observed_model, _guide, "in the guide but not latent in the model"),
        (_guide, _guide, "observes nothing"),
    ],
)
def test_programs_that_do_not_fit(x, model, guide, message):
    with pytest.raises(ValueError, match=message):
        draw(model, guide, 2, (x,))


@pytest.mark.parametrize("num_particles", [1, 2, 3])
def test_a_scale_within_a_datum_is_refused_at_a_latent_site(num_particles):
    """The scores of a site are added over its inner plates before they are scaled."""
    x = torch.zeros(3, 4, dtype=torch.float64)  # (inner, B)

    def program(x, factor, observe):
        with pyro.plate("data", 4, dim=-1), pyro.plate("inner", 3, dim=-2):
            with poutine.scale(scale=factor):
                z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            if observe:
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def run(factor):
        how = {"max_plate_nesting": 2, "plate": num_particles > 1}
        model, guide = partial(program, observe=True), partial(program, observe=False)
        return draw(model, guide, num_particles, (x, factor), **how)

    with pytest.raises(ValueError, match=r"scaled by a tensor of shape \(3, 1\)"):
        run(torch.tensor([[0.5], [1.0], [2.0]]))
    for_each = torch.tensor([[0.5, 1.0, 2.0, 4.0]])
    weight = run(for_each).latents["z"].kl_weight
    assert_close(weight.expand(num_particles, 4), for_each.expand(num_particles, 4))


def test_tensor_scales_of_both_programs_are_compared(x):
    one, other = torch.tensor(0.5), torch.tensor(2.0)
    assert draw(poutine.scale(_model, one), poutine.scale(_guide, one.clone()), 2, (x,)).scaled
    with pytest.raises(ValueError, match=r"scaled by 0.5 in the model but by 2.0 in the guide"):
        draw(poutine.scale(_model, one), poutine.scale(_guide, other), 2, (x,))


def test_a_factor_of_the_guide_is_refused(x):
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))
            pyro.factor("volume", x, has_rsample=True)

    for num_particles in (1, 2):
        with pytest.raises(ValueError, match=r"guide has the factors \['volume'\]"):
            draw(_model, guide, num_particles, (x,), plate=num_particles > 1)


@pytest.mark.parametrize("num_particles", [1, 2])
def test_elements_without_a_plate_are_refused(num_particles):
    """As many elements as data fit the plate of the data, and each would be taken for a datum."""
    x = torch.zeros(3, 3)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0).to_event(1))

    with pytest.raises(ValueError, match=r"'x' has the batch shape .* Say with to_event"):
        draw(model, guide, num_particles, (x,), plate=num_particles > 1)


def test_deterministic_values_count_nothing(x):
    def model(x):
        shift = pyro.deterministic("shift", x.new_tensor(0.3))  # outside the plate of the data
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            rate = pyro.deterministic("rate", (z + shift).exp(), event_dim=0)
            pyro.sample("x", dist.Poisson(rate), obs=x)

    data = torch.tensor([0.0, 2.0, 1.0], dtype=torch.float64)
    found = draw(model, _guide, 4, (data,))
    z = found.latents["z"].value
    assert_close(found.log_likelihood, dist.Poisson((z + 0.3).exp()).log_prob(data))
    assert (found.num_dims, found.discrete, found.mixed) == (1, True, False)
    (fresh,), latents = simulate(model, (data,))
    assert set(latents) == {"z"}
    assert fresh.shape == data.shape


def test_a_reparameterised_model_counts_no_site_twice(x):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_ones(()), 2.0))
            pyro.sample("x", dist.Poisson(z.exp()), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z_decentered", dist.Normal(x.new_zeros(()), 1.0))

    data = torch.tensor([0.0, 2.0, 1.0], dtype=torch.float64)
    changed = poutine.reparam(model, {"z": LocScaleReparam(0.0)})
    found = draw(changed, guide, 4, (data,))
    z = 1.0 + 2.0 * found.latents["z_decentered"].value
    assert_close(found.log_weights, dist.Poisson(z.exp()).log_prob(data))  # the guide is the prior
    assert (found.num_dims, found.discrete, found.mixed) == (1, True, False)
    assert set(simulate(changed, (data,))[1]) == {"z_decentered"}


def test_event_dimensions_must_agree(x):
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, None], 1.0).to_event(1))

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    with pytest.raises(ValueError, match=r"event shape \(\) in the model but \(1,\) in the guide"):
        draw(model, guide, 1, (x,))
