"""Path gradients on VAEs of real parts: unbiased whatever the prior shares and however the
posterior is made.
"""

import pytest
import torch
from helpers.gradients import assert_within, spread

import pyrovae as pv
from pyrovae import likelihoods, nets, posteriors, priors
from pyrovae.estimators import ELBO, IWAE, STL, DReG

PARTS = {
    "vamp": (priors.Vamp(num_components=3), posteriors.DiagonalNormal()),
    "flow posterior": (priors.StandardNormal(), posteriors.Flow()),
    "flow prior": (priors.Flow(), posteriors.FullRankNormal()),
}


@pytest.mark.parametrize(
    ("path", "plain"), [(STL(1), ELBO(1)), (DReG(3), IWAE(3))], ids=["STL", "DReG"]
)
@pytest.mark.parametrize("name", PARTS)
def test_path_gradients_have_the_expected_gradient(name, path, plain):
    prior, posterior = PARTS[name]
    torch.manual_seed(0)
    vae = pv.VAE(
        4,
        2,
        prior=prior,
        posterior=posterior,
        likelihood=likelihoods.Gaussian(),
        encoder=nets.MLP(5),
        decoder=nets.MLP(5),
    ).double()
    x = torch.randn(1, 4, dtype=torch.float64)
    mean, error = spread(path, vae, x, copies=150)
    other, other_error = spread(plain, vae, x, copies=150, seed=1_000)
    assert_within(mean, error, other, other_error)
