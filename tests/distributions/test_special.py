"""The functions that densities share: against 150 digits, and their second derivatives."""

import mpmath as mp
import pytest
import torch

from pyrovae.distributions import deviances, special

SMOOTH = {
    "log_one_plus_square": (special.log_one_plus_square, [0.0, 0.3, -2.0]),
    "stirling_error": (special.stirling_error, [0.3, 3.0, 20.0]),
    "poisson_deviance": (
        lambda l: deviances.poisson_deviance(l, torch.tensor(3.0)),
        [0.0, 1.0, 3.0],
    ),
}


@pytest.fixture(autouse=True)
def digits():
    with mp.workdps(150):
        yield


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_stirling_error(dtype):
    x = torch.logspace(-30, 30, 301, dtype=torch.float64).to(dtype).requires_grad_()
    value = special.stirling_error(x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-14
    for found, by_log, point in zip(value.tolist(), (slope * x).tolist(), x.tolist(), strict=True):
        point = mp.mpf(point)
        exact = mp.loggamma(point) - (point - 0.5) * mp.log(point) + point - mp.log(2 * mp.pi) / 2
        assert abs(found - exact) < tolerance * (1 + abs(exact))
        assert abs(by_log - point * (mp.psi(0, point) - mp.log(point)) - 0.5) < tolerance


@pytest.mark.parametrize("name", SMOOTH)
def test_second_derivatives(name):
    function, points = SMOOTH[name]
    x = torch.tensor(points, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(function, (x,))


def test_second_derivatives_of_two_parameters():
    a = torch.tensor([0.3, 2.0, 30.0], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([1.3, 2.5, 10.0], dtype=torch.float64, requires_grad=True)
    x = torch.tensor([0.1, 0.4, 0.74], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(deviances.beta_deviance, (a, b, x))
    assert torch.autograd.gradcheck(deviances.beta_deviance, (a, b, x))
    count = torch.tensor([4.0, 2.0, 9.0], dtype=torch.float64, requires_grad=True)
    deviance = deviances.negative_binomial_deviance
    assert torch.autograd.gradcheck(deviance, (a.detach().log().requires_grad_(), b, count))
    assert torch.autograd.gradgradcheck(deviance, (a.detach().log().requires_grad_(), b, count))
