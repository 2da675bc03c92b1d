"""What a sandwich refuses, since its simulated latent values would be no draws
from the posterior.
"""

import pytest
import torch

import pyrovae as pv
from pyrovae import likelihoods
from pyrovae.evidence import ImportanceSampling, bdmc

COUNTS = [
    likelihoods.Poisson,
    likelihoods.NegativeBinomial,
    likelihoods.ZeroInflatedNegativeBinomial,
]


@pytest.mark.parametrize("likelihood", COUNTS, ids=lambda kind: kind.__name__)
def test_counts_simulated_at_one_total_and_scored_at_another_are_refused(likelihood):
    torch.manual_seed(0)
    method, data = ImportanceSampling(5), torch.ones(4, 6)
    vae = pv.VAE(6, 2, likelihood=likelihood(exposure="total"))
    with pytest.raises(ValueError, match="exposure='total'"):
        bdmc(vae.model, vae.guide, num_data=4, method=method, data=data)
    with pytest.raises(ValueError, match="exposure='total'"):
        bdmc(vae.model, vae.guide, num_data=4, method=method)
    plain = pv.VAE(6, 2, likelihood=likelihood())
    assert len(bdmc(plain.model, plain.guide, num_data=4, method=method, data=data)) == 4
