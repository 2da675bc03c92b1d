"""Networks of checked sizes."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from pyrovae import nets
from pyrovae.nets.sized import Sized


def test_any_number_of_batch_dimensions():
    sized = Sized(nets.MLP(5), (2, 3), (4, 1), "A net")
    x = torch.rand(6, 5, 2, 3)
    assert sized(x).shape == (6, 5, 4, 1)
    assert_close(sized(x)[3, 2], sized(x[3, 2]))
    assert sized(x[0, 0]).shape == (4, 1)
    assert sized(torch.rand(0, 2, 3)).shape == (0, 4, 1)


def test_a_module_may_return_its_output_flattened():
    flat = Sized(nn.Linear(3, 8), (3,), (2, 4), "The decoder")
    shaped = Sized(
        nn.Sequential(nn.Linear(3, 8), nn.Unflatten(1, (2, 4))), (3,), (2, 4), "The decoder"
    )
    shaped.net[0].load_state_dict(flat.net.state_dict())
    z = torch.rand(5, 3)
    assert_close(flat(z), shaped(z))


@pytest.mark.parametrize(
    ("net", "error", "message"),
    [
        (
            nn.Linear(3, 7),
            ValueError,
            r"The decoder gave \(2, 7\) for an input of shape \(2, 3\), expected \(2, 8\)",
        ),
        (nn.Linear(4, 8), ValueError, r"The decoder failed on a zero input of shape \(2, 3\)"),
        (nn.LSTM(3, 8), ValueError, "The decoder gave tuple"),
        (nn.Flatten(0), ValueError, r"The decoder gave \(6,\)"),
        (
            nn.Linear,
            TypeError,
            "must be a net recipe such as nets.MLP.* or an nn.Module, found type",
        ),
        ([300, 300], TypeError, "found list"),
    ],
)
def test_networks_of_the_wrong_size_are_refused(net, error, message):
    with pytest.raises(error, match=message):
        Sized(net, (3,), (2, 4), "The decoder")


def test_checking_leaves_the_network_as_it_was():
    """Batch statistics, modes, gradients and random state: the probe moves none of them."""
    frozen = nn.Dropout(0.5).eval()
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), frozen, nn.Dropout(0.1))
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    Sized(net, (3,), (4,), "The encoder")
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in net] == [True, True, False, True]
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_a_double_network_is_probed_in_double():
    sized = Sized(nn.Linear(3, 4).double(), (3,), (4,), "The encoder")
    assert sized(torch.rand(2, 3, dtype=torch.float64)).dtype == torch.float64
