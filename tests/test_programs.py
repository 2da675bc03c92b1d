"""What lies behind a program: handlers, partial functions and decorated methods."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn

import pyrovae as pv
from pyrovae.data.arguments import num_arguments
from pyrovae.particles.trial import remember, runs_separately
from pyrovae.programs import check_taken, modules_of


def program(net, factor, x, weight=1.0):
    with pyro.plate("data", len(x)):
        return pyro.sample("z", dist.Normal(factor * net(x), weight).to_event(1))


class Decorated(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 3)

    @poutine.scale(scale=2.0)
    @poutine.mask(mask=True)
    def model(self, x, y=None):
        return program(self.net, 1.0, x)


NET, OWNER = nn.Linear(3, 3), Decorated()


def given(x, y=None, *, scale=1.0):
    """Only its signature counts."""


@pytest.mark.parametrize(
    ("function", "num", "fits"),
    [(given, 1, True), (given, 2, True), (given, 3, False), (given, 0, False),
     (lambda *x, **more: None, 5, True), (torch.nn.Linear(2, 2), 2, False)],
)  # fmt: skip
def test_arrays_that_a_program_does_not_take_are_refused_by_its_arguments(function, num, fits):
    if fits:
        check_taken(function, *range(num))
        return
    with pytest.raises(TypeError, match=r"takes \((x, y, scale|input)\), .* (1|\d) arrays?\. Give"):
        check_taken(function, *range(num))


@pytest.mark.parametrize(
    ("made", "modules", "num"),
    [
        (partial(program, NET, 0.7), [NET], 1),
        (poutine.scale(partial(program, NET, 0.7), scale=2.0), [NET], 1),
        (partial(poutine.scale(program, scale=2.0), NET, 0.7), [NET], 1),
        (partial(program, NET, factor=0.7), [NET], 0),
        (poutine.mask(poutine.scale(NET, scale=2.0), mask=True), [NET], 1),
        (OWNER.model, [OWNER], 2),
        (partial(OWNER.model, y=None), [OWNER], 1),
        (poutine.scale(OWNER.model, scale=2.0), [OWNER], 2),
    ],
)
def test_modules_and_arguments_of_a_wrapped_program(made, modules, num):
    assert modules_of(made) == modules
    assert num_arguments(made) == num


@pytest.mark.filterwarnings("ignore:.*does not broadcast")
def test_a_trial_is_of_one_program():
    """What is found of a program holds for it under a handler, and for no other one."""
    first, second = (partial(program, NET, factor) for factor in (0.1, 0.2))
    remember(poutine.scale(first, scale=2.0), 5)
    assert runs_separately(first)
    assert not runs_separately(second)
    other = Decorated()
    remember(OWNER.model, 5)
    assert runs_separately(OWNER.model)
    assert not runs_separately(other.model)


def observed(x, weight=1.0):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, weight).to_event(1), obs=x)


def test_observe_part_takes_programs_with_settings_and_bound_arguments():
    """A default is a setting, and neither it nor what a partial function binds is data."""
    x, mask = torch.ones(2, 3), torch.tensor([[True, True, False]]).expand(2, 3)
    guide = partial(program, NET, 0.7)
    found = pv.observe_part(observed, guide)
    assert [num_arguments(each) for each in found] == [2, 2]
    assert modules_of(found[1]) == [NET]
    evidence = pv.log_marginal(*found, (x, mask), num_particles=2000)
    expected = dist.Normal(0.0, 2**0.5).log_prob(torch.ones(2)).sum()
    assert abs(evidence.mean() - float(expected)) < 5 * evidence.monte_carlo_error() + 1e-6
