"""Oracles with known gradients, and ways to measure the gradient of an estimator."""

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyrovae.estimators import Estimator
from pyrovae.testing import LinearGaussian


def gradient(module: nn.Module, scalar: Tensor) -> Tensor:
    """The gradient of a scalar with respect to every parameter of a module, as one vector; absent
    ones are zero.
    """
    found = torch.autograd.grad(scalar, list(module.parameters()), allow_unused=True)
    pieces = [
        torch.zeros_like(p) if g is None else g
        for p, g in zip(module.parameters(), found, strict=True)
    ]
    return torch.cat([piece.flatten() for piece in pieces])


def spread(
    estimator: Estimator,
    module: nn.Module,
    x: Tensor,
    *,
    copies: int = 400,
    rounds: int = 40,
    seed: int = 0,
):
    """Mean and standard error of the ascent gradient for one pass over x, from ``copies * rounds``
    passes.
    """
    found = []
    many = x.repeat(copies, *[1] * (x.dim() - 1))
    for i in range(rounds):
        torch.manual_seed(seed + i)
        found.append(
            -gradient(module, estimator.differentiable_loss(module.model, module.guide, many))
            / copies
        )
    stacked = torch.stack(found)
    return stacked.mean(0), stacked.std(0) / rounds**0.5


def assert_within(
    mean: Tensor, error: Tensor, truth: Tensor, other_error: Tensor | float = 0.0
) -> None:
    """Agreement within 4.5 standard errors: about one false alarm in 5,000 for the 30 elements
    compared here.
    """
    error = (error**2 + torch.as_tensor(other_error) ** 2).sqrt()
    excess = (mean - truth).abs() - 4.5 * error - 1e-10
    assert excess.max() <= 0, f"off by {((mean - truth) / error).abs().max():.1f} standard errors"


def exact_elbo(oracle: LinearGaussian, x: Tensor) -> Tensor:
    """``(B,)``, differentiable: log p(x) - KL(q || p(z | x))."""
    return oracle.log_prob(x) - oracle.kl_to_posterior(x)


class TwoLayers(nn.Module):
    """z2 ~ N(0, 1), z1 | z2 ~ N(a z2, s), x | z1 ~ N(c z1, r), with the exact posterior as a
    bottom-up guide.

    The guide draws z1 given x, then z2 given z1; ``spoil`` shifts its parameters away from the
    exact ones.
    """

    def __init__(self, spoil: float = 0.0):
        super().__init__()

        def parameter(value: float) -> nn.Parameter:
            return nn.Parameter(torch.tensor(value, dtype=torch.float64))

        a, s, c, r = 0.8, 0.6, 1.3, 0.5
        self.a, self.log_s, self.c, self.log_r = (
            parameter(a),
            parameter(math.log(s)),
            parameter(c),
            parameter(math.log(r)),
        )
        prior1 = a**2 + s**2
        precision1 = 1 / prior1 + c**2 / r**2
        precision2 = 1 + a**2 / s**2
        self.gain1, self.gain2 = (
            parameter(c / r**2 / precision1 + spoil),
            parameter(a / s**2 / precision2 - spoil),
        )
        self.log_scale1 = parameter(-0.5 * math.log(precision1) + spoil)
        self.log_scale2 = parameter(-0.5 * math.log(precision2) + spoil)

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z2 = pyro.sample("z2", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
            z1 = pyro.sample("z1", dist.Normal(self.a * z2, self.log_s.exp()))
            pyro.sample("x", dist.Normal(self.c * z1, self.log_r.exp()), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z1 = pyro.sample("z1", dist.Normal(self.gain1 * x, self.log_scale1.exp()))
            pyro.sample("z2", dist.Normal(self.gain2 * z1, self.log_scale2.exp()))

    def log_prob(self, x: Tensor) -> Tensor:
        variance = self.c**2 * (self.a**2 + self.log_s.exp() ** 2) + self.log_r.exp() ** 2
        return dist.Normal(0.0, variance.sqrt()).log_prob(x)

    def elbo(self, x: Tensor) -> Tensor:
        """``(B,)``: reconstruction less the KL of the joint Gaussians of (z1, z2)."""
        mean = torch.stack([self.gain1 * x, self.gain2 * self.gain1 * x], -1)
        variance1, variance2 = (2 * self.log_scale1).exp(), (2 * self.log_scale2).exp()
        across = self.gain2 * variance1
        spread = torch.stack([variance1, across, across, self.gain2 * across + variance2]).reshape(
            2, 2
        )
        above = torch.stack(
            [self.a**2 + (2 * self.log_s).exp(), self.a, self.a, torch.ones_like(self.a)]
        )
        q = dist.MultivariateNormal(mean, spread)
        p = dist.MultivariateNormal(torch.zeros_like(mean), above.reshape(2, 2))
        noise = self.log_r.exp()
        log_x = dist.Normal(self.c * mean[:, 0], noise).log_prob(x) - self.c**2 * variance1 / (
            2 * noise**2
        )
        return log_x - torch.distributions.kl_divergence(q, p)

    @property
    def guide_slice(self) -> slice:
        """Where the guide's parameters lie in :func:`gradient`."""
        return slice(4, 8)


class SharedPrior(LinearGaussian):
    """A linear Gaussian whose prior is the guide at a learned pseudo-input, as in a Vamp prior of
    one component.
    """

    def __init__(self, **options):
        super().__init__(**options)
        self.pseudo = nn.Parameter(torch.linspace(-1, 1, len(self.bias), dtype=self.bias.dtype))

    def prior(self):
        return dist.Normal(self.gain @ self.pseudo + self.offset, self.log_scale.exp()).to_event(1)

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior())
            mean = z @ self.weight.T + self.bias
            pyro.sample("x", dist.Normal(mean, self.log_noise.exp()).to_event(1), obs=x)

    def elbo(self, x: Tensor) -> Tensor:
        """``(B,)``: reconstruction and KL, both in closed form."""
        q = dist.Normal(x @ self.gain.T + self.offset, self.log_scale.exp()).to_event(1)
        sigma = self.log_noise.exp()
        at_mean = dist.Normal(q.mean @ self.weight.T + self.bias, sigma).to_event(1).log_prob(x)
        spread = (self.weight**2 @ self.log_scale.exp() ** 2).sum() / (2 * sigma**2)
        return at_mean - spread - torch.distributions.kl_divergence(q, self.prior())
