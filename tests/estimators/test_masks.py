"""Masks and scales that only some sites, or one program, have; data of which only a part is
observed.
"""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.gradients import assert_within
from pyro import poutine
from torch.testing import assert_close

import pyrovae as pv
from pyrovae import nets
from pyrovae.estimators import ELBO, IWAE, STL, AnalyticKL, Capacity, ScoreELBO
from pyrovae.handlers import KLScale
from pyrovae.testing import LinearGaussian

X = torch.tensor([0.7, -1.1, 0.2, 1.5], dtype=torch.float64)
SOME = torch.tensor([True, False, True, False])
OTHERS = torch.tensor([True, True, False, False])


def programs(in_model, in_guide):
    def model(x):
        with pyro.plate("data", len(x)):
            with poutine.mask(mask=in_model):
                z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
            pyro.sample("x", dist.Normal(1.2 * z, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            if in_guide is None:
                return pyro.sample("z", dist.Normal(0.4 * x, 0.6))
            with poutine.mask(mask=in_guide):
                return pyro.sample("z", dist.Normal(0.4 * x, 0.6))

    return model, guide


def masked_elbo(in_model, in_guide):
    """E[log p(x | z) + m log p(z) - n log q(z | x)] for the masks m and n, in closed form."""
    mean, variance = 0.4 * X, 0.36
    log_x = dist.Normal(1.2 * mean, 0.5).log_prob(X) - 1.44 * variance / (2 * 0.25)
    log_p = dist.Normal(0.0, 1.0).log_prob(mean) - variance / 2
    entropy = dist.Normal(mean, 0.6).entropy()
    return log_x + in_model * log_p + in_guide * entropy


@pytest.mark.filterwarnings("ignore:AnalyticKL")
@pytest.mark.parametrize("estimator", [ELBO(2), AnalyticKL(2), STL(2), ScoreELBO(2)], ids=repr)
@pytest.mark.parametrize(
    ("in_model", "in_guide"), [(SOME, None), (True, SOME), (SOME, OTHERS), (SOME, SOME)]
)
def test_masks_count_where_they_stand(estimator, in_model, in_guide):
    torch.manual_seed(0)
    copies = 2_000
    wide = [m.repeat(copies) if torch.is_tensor(m) else m for m in (in_model, in_guide)]
    found = estimator.bound(*programs(*wide), X.repeat(copies)).reshape(copies, -1)
    truth = masked_elbo(*(m.double() if torch.is_tensor(m) else 1.0 for m in (in_model, in_guide)))
    assert_within(found.mean(0), found.std(0) / len(found) ** 0.5, truth)


def test_a_mask_in_one_program_has_no_closed_form_and_says_so():
    model, guide = programs(SOME, None)
    with pytest.raises(ValueError, match="site 'z' is masked in one program only"):
        AnalyticKL(strict=True).bound(model, guide, X)
    AnalyticKL(strict=True).bound(*programs(SOME, SOME.clone()), X)


@pytest.mark.parametrize("one_sided", [(SOME, None), (True, SOME)])
def test_weights_under_a_mask_in_one_program_are_refused(one_sided):
    with pytest.raises(ValueError, match=r"IWAE is .*\.mask in one program alone"):
        IWAE(3).bound(*programs(*one_sided), X)
    IWAE(3).bound(*programs(SOME, SOME), X)


@pytest.mark.parametrize("beta", [0.5, torch.tensor(1.0)])
def test_capacity_refuses_a_scale(beta):
    oracle = LinearGaussian()
    with pytest.raises(ValueError, match="Leave beta at 1 and choose gamma"):
        Capacity(AnalyticKL()).bound(
            KLScale(beta)(oracle.model), KLScale(beta)(oracle.guide), oracle.sample(3)
        )


# --- observed parts ------------------------------------------------------------------------------


@pytest.fixture
def table():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(12, 5, generator=generator).round()
    return x, torch.rand(12, 5, generator=generator) > 0.3


def trained(programs, data):
    return pv.fit(*programs, data, estimator=ELBO(), epochs=2, batch_size=4, compile=False)


def vae():
    torch.manual_seed(0)
    return pv.VAE((5,), 2, encoder=nets.MLP(8), decoder=nets.MLP(8))


def test_training_on_observed_parts_is_training_where_all_is_observed(table):
    x, _ = table
    whole, part = vae(), vae()
    expected = trained((whole.model, whole.guide), x)
    found = trained(pv.observe_part(part.model, part.guide), (x, torch.ones_like(x).bool()))
    np.testing.assert_allclose(found["train_bound"], expected["train_bound"], rtol=1e-5)


def test_missing_elements_do_not_matter(table):
    x, mask = table
    histories = []
    for fill in (0.0, 1.0):
        net = vae()
        filled = torch.where(mask, x, torch.full_like(x, fill))
        histories.append(trained(pv.observe_part(net.model, net.guide), (filled, mask)))
    np.testing.assert_array_equal(histories[0]["train_bound"], histories[1]["train_bound"])


def test_estimators_are_compared_on_observed_parts(table):
    net = vae()
    found = pv.compare_estimators(
        *pv.observe_part(net.model, net.guide),
        table,
        {"ELBO": ELBO(), "IWAE": IWAE(3)},
        num_replicates=4,
        reference_particles=50,
    )
    assert "IWAE" in repr(found)


def test_what_a_likelihood_refuses_is_refused_in_the_observed_part(table):
    x, mask = table
    net = vae()
    with pytest.raises(ValueError, match="Bernoulli"):
        trained(pv.observe_part(net.model, net.guide), (x + 0.5, mask))


def test_observed_parts_add_up(table):
    """At the same draws, the elements seen under a mask and under its
    complement are all elements.
    """
    x, mask = table
    net = vae()

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    found = []
    for part in (mask, ~mask, torch.ones_like(mask)):
        torch.manual_seed(0)
        particles = ELBO(3).particles(*pv.observe_part(net.model, guide), x, part)
        found.append(particles.log_likelihood)
    assert_close(found[0] + found[1], found[2])
