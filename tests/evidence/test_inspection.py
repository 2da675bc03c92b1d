"""What an inspection finds out about programs: modules in training mode, observed elements,
inference tensors.
"""

import math
import threading

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn
from torch.nn import functional as F

import pyrovae as pv
from pyrovae.evidence import AIS, ImportanceSampling, observe_part
from pyrovae.evidence.inspection import inspect
from pyrovae.programs import evaluation_mode
from pyrovae.testing import LinearGaussian

ORACLE = LinearGaussian(data_dim=4)


class Decoder(nn.Module):
    """The oracle's decoder with dropout and batch normalisation, which do nothing in eval mode."""

    def __init__(self):
        super().__init__()
        self.dropout, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(4, eps=0.0, affine=False)
        self.double()

    def forward(self, z):
        x = self.dropout(z @ ORACLE.weight.T + ORACLE.bias)
        return self.norm(x.reshape(-1, 4)).reshape(x.shape)


class Holder:
    """A plain object with modules in a list."""

    def __init__(self, module):
        self.modules = [module]

    def model(self, x):
        return model_with(self.modules[0], x)


HELD = {"decoder": Decoder()}


def decode(z):
    return HELD["decoder"](z)


def model_with(decoder, x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(decoder(z), ORACLE.log_noise.exp()).to_event(1), obs=x)


def in_a_dictionary(x):
    return model_with(HELD["decoder"], x)


def behind_a_function(x):
    return model_with(decode, x)


@pytest.mark.parametrize(
    "model",
    [in_a_dictionary, behind_a_function, Holder(HELD["decoder"]).model],
    ids=["dictionary", "function", "list"],
)
def test_modules_are_in_eval_mode_however_they_are_held(model):
    x, decoder = ORACLE.sample(6), HELD["decoder"]
    decoder.train()
    decoder.dropout.eval()
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    decoder.dropout.train()
    evidence = pv.log_marginal(model, ORACLE.guide, x, num_particles=20)
    np.testing.assert_allclose(evidence.log_marginal, ORACLE.log_prob(x).detach(), atol=1e-9)
    assert decoder.training
    assert decoder.dropout.training
    for name, value in decoder.state_dict().items():
        assert torch.equal(value, before[name])


def test_modes_come_back_one_by_one():
    decoder = Decoder()
    decoder.norm.eval()
    with evaluation_mode(lambda: None):
        decoder(torch.zeros(3, 2).double())
        assert not decoder.training
        assert not decoder.dropout.training
    assert decoder.training
    assert decoder.dropout.training
    assert not decoder.norm.training
    decoder(torch.zeros(3, 2).double())  # no hook is left
    assert decoder.training


@pytest.mark.parametrize("function", [F.dropout, F.alpha_dropout])
def test_dropout_that_no_module_holds_is_refused(function):
    def decoder(z):
        return function(z @ ORACLE.weight.T + ORACLE.bias, 0.5, True)

    def model(x):
        return model_with(decoder, x)

    with pytest.raises(ValueError, match="dropout in training mode"):
        pv.log_marginal(model, ORACLE.guide, ORACLE.sample(3), num_particles=5)


# --- bits per dimension under a mask
# ------------------------------------------------------------------------------


def coins(x, mask=None):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        half = torch.full_like(x, 0.5).expand(*z.shape, x.shape[-1])
        pyro.sample("x", dist.Bernoulli(half).to_event(1), obs=x)


def coins_guide(x, mask=None):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))


def test_bits_per_dimension_count_what_is_observed():
    """A fair coin takes one bit, whichever coins of a datum are seen."""
    x = torch.bernoulli(torch.full((8, 6), 0.5))
    mask = torch.rand(8, 6, generator=torch.Generator().manual_seed(0)) < 0.5
    mask[:, 0] = True
    programs = observe_part(coins, coins_guide)
    for budget in (None, 1):
        evidence = pv.log_marginal(*programs, (x, mask), num_particles=2, memory_budget=budget)
        assert evidence.bits_per_dim == pytest.approx(1.0, rel=1e-5)
        assert "1 bits per dimension" in repr(evidence)


def test_sites_of_unlike_kinds_have_no_bits_per_dimension():
    def both(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Bernoulli(torch.full_like(x, 0.5)).to_event(1), obs=x)
            pyro.sample("y", dist.Normal(torch.zeros_like(x), 1.0).to_event(1), obs=x)

    x = torch.bernoulli(torch.full((8, 6), 0.5))
    evidence = pv.log_marginal(both, coins_guide, x, num_particles=2)
    assert "bits per dimension" not in repr(evidence)


def test_bits_per_dimension_under_a_handlers_mask():
    def model(x, mask):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            with pyro.poutine.mask(mask=mask[:, 0]):
                half = torch.full_like(x, 0.5).expand(*z.shape, x.shape[-1])
                pyro.sample("x", dist.Bernoulli(half).to_event(1), obs=x)
            one = torch.full_like(x[:, 0], 0.5).expand(z.shape)
            pyro.sample("y", dist.Bernoulli(one), obs=x[:, 0])

    x = torch.bernoulli(torch.full((8, 3), 0.5))
    mask = torch.tensor([[True], [False]]).repeat(4, 1)
    evidence = pv.log_marginal(model, coins_guide, (x, mask), num_particles=2)
    assert evidence.dataset.attrs["num_dims"] == 2.5
    assert evidence.bits_per_dim == pytest.approx(1.0, rel=1e-5)
    plain = pv.log_marginal(coins, coins_guide, x, num_particles=2)
    assert plain.dataset.attrs["num_dims"] == 3
    assert plain.bits_per_dim == pytest.approx(1.0, rel=1e-5)


# --- torch.inference_mode
# -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        AIS(4, 4, num_leapfrog=2),
        ImportanceSampling(50, refine_steps=10),
        ImportanceSampling(50),
    ],
    ids=["ais", "refine", "plain"],
)
def test_inference_mode_changes_nothing(method):
    x = ORACLE.sample(3)
    expected = pv.log_marginal(ORACLE.model, ORACLE.guide, x, method=method)
    with torch.inference_mode():
        given = ORACLE.sample(3)  # a tensor that can have no gradient
        found = pv.log_marginal(ORACLE.model, ORACLE.guide, given, method=method)
        assert torch.is_inference_mode_enabled()
    assert found.dataset.identical(expected.dataset)


def test_a_sandwich_under_inference_mode():
    with torch.inference_mode():
        found = pv.bdmc(ORACLE.model, ORACLE.guide, num_data=3, method=AIS(3, 4, num_leapfrog=2))
    assert math.isfinite(float(found.gap.mean()))


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (np.ma.masked_array(np.zeros((3, 6)), np.eye(3, 6)), ValueError, "3 values .* masked"),
        (np.zeros((3, 6), complex), TypeError, "complex128"),
        (np.full((3, 6), 2**63, np.uint64), ValueError, "do not fit into 64 bits"),
    ],
    ids=["masked", "complex", "uint64"],
)
def test_arrays_that_a_tensor_cannot_hold_are_refused(data, error, message):
    owner = LinearGaussian(seed=0)
    with pytest.raises(error, match=message):
        pv.log_marginal(owner.model, owner.guide, data, num_particles=30)
    with pytest.raises(error, match=message):
        pv.log_marginal(owner.model, owner.guide, (data,), num_particles=30)


def test_modules_that_another_thread_runs_keep_their_mode():
    modes = []
    net = nn.Sequential(nn.Dropout(0.5))
    net.register_forward_pre_hook(lambda module, args: modes.append(module.training))
    with evaluation_mode(lambda x: x):
        thread = threading.Thread(target=net, args=(torch.ones(2),))
        thread.start()
        thread.join()
        assert modes == [True]
        assert net[0].training
        net(torch.ones(2))
    assert modes == [True, False]
    assert net.training


@pytest.mark.parametrize("both", [False, True])
def test_a_mask_in_one_program_alone_is_refused(both):
    """The weights would depend on the guide even where it is exact."""
    oracle = LinearGaussian(shift=0.4)
    x = oracle.sample(3)

    def model(x):
        with pyro.plate("data", len(x)):
            with poutine.mask(mask=x[:, 0] > 0):
                z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            mean = z @ oracle.weight.T + oracle.bias
            pyro.sample("x", dist.Normal(mean, oracle.log_noise.exp()).to_event(1), obs=x)

    def masked(x):
        with poutine.mask(mask=x[:, 0] > 0):
            return oracle.guide(x)

    if both:
        inspect(model, masked, x)
        return
    with pytest.raises(ValueError, match="A mask hides part of the site 'z' in one program"):
        inspect(model, oracle.guide, x)


def test_a_device_that_is_not_here_is_refused_in_few_words():
    oracle = pv.testing.LinearGaussian()
    with pytest.raises(ValueError, match=r"no device 'abacus' here. Choose cpu"):
        pv.log_marginal(oracle.model, oracle.guide, oracle.sample(2), device="abacus")
