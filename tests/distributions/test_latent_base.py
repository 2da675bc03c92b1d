"""The way into wrapped distributions, and what distributions over vectors share."""

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch.distributions import Independent

from pyrovae.distributions.base import innermost
from pyrovae.distributions.spherical import HypersphericalUniform, PowerSpherical


def test_innermost_passes_every_wrapper_and_nothing_else():
    normal = dist.Normal(torch.zeros(3, 2), 1.0)
    for wrapped in (
        normal,
        normal.to_event(1),
        normal.to_event(1).to_event(1),
        normal.mask(torch.tensor(True)).to_event(2),
        ExpandedDistribution(normal.to_event(1), torch.Size((4, 3))),
    ):
        assert innermost(wrapped) is normal
    masked = normal.mask(torch.tensor(True))
    assert innermost(masked.to_event(2), Independent) is masked
    pushed = dist.LogNormal(torch.zeros(3), 1.0)  # a base variable is not the same variable
    assert innermost(pushed.to_event(1)) is pushed


def test_expanding_leaves_the_original_and_its_parameters_alone():
    uniform = HypersphericalUniform(torch.zeros(3))
    peaked = PowerSpherical(torch.eye(3)[0], torch.tensor(2.0), validate_args=True)
    for p in (uniform, peaked):
        wide = p.expand((4, 2))
        assert (wide.batch_shape, p.batch_shape) == ((4, 2), ())
        assert wide.sample((5,)).shape == (5, 4, 2, 3)
        assert wide.log_prob(wide.sample()).shape == wide.entropy().shape == (4, 2)
        assert wide.mean.shape == (4, 2, 3)
        assert wide._validate_args == p._validate_args
    assert peaked.expand((4, 2)).concentration is peaked.concentration
