"""What a sandwich takes as data, and what it refuses, since its simulated latent values would be
no draws from the posterior.
"""

import pytest
import torch
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

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


def test_the_shape_of_data_comes_from_a_loader_too():
    oracle, x = pv.testing.LinearGaussian(), torch.zeros(6, 5, dtype=torch.float64)
    loader = DataLoader(TensorDataset(x, torch.arange(6)), batch_size=4)  # labels are left out
    method = ImportanceSampling(5)
    sandwiches = [
        bdmc(oracle.model, oracle.guide, num_data=6, data=form, method=method)
        for form in (x, loader)
    ]
    assert_close(*(torch.tensor(each.lower.values) for each in sandwiches))
    with pytest.raises(ValueError, match=r"7 data are to be simulated.*hold 6 rows"):
        bdmc(oracle.model, oracle.guide, num_data=7, data=loader, method=method)
