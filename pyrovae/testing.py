r"""Programs whose marginal likelihood is known exactly, as references for tests.

- :class:`LinearGaussian`: :math:`p(x) = N(b, W W^\top + \sigma^2 I)`, with a Gaussian posterior.
- :class:`DiscreteMixture`: a discrete latent, summed over its few values.
- :func:`quadrature`: log p(x) of any prior and likelihood with a one- or two-dimensional z.
"""

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyrovae.programs import register_parameters

__all__ = ["DiscreteMixture", "LinearGaussian", "quadrature"]


class LinearGaussian(nn.Module):
    r"""A VAE with a linear decoder and Gaussian noise, of which everything is known in closed form.

    .. math:: z \sim N(0, I_D), \quad x \mid z \sim N(Wz + b,\ \sigma^2 I), \quad
              p(x) = N(b,\ W W^\top + \sigma^2 I)

    The guide is a diagonal Gaussian whose mean is linear in x. If the columns of W are orthogonal,
    it is the exact posterior at the start. If they are not, it is the best diagonal approximation
    in KL(q || p). ``shift`` and ``stretch`` make it worse on purpose.

    Args:
        data_dim: Dimension of x.
        latent_dim: Dimension D of z.
        noise: The standard deviation sigma.
        orthogonal: Whether the columns of W are orthogonal.
        shift: Added to the guide's mean, in units of its standard deviation.
        stretch: Factor on the guide's standard deviation.
        seed: Random seed of W and b; the global random state does not change.
        dtype: Type of all parameters.

    Example:
        >>> oracle = LinearGaussian(data_dim=5, latent_dim=2)
        >>> x = oracle.sample(4)
        >>> exact = oracle.log_prob(x)  # what estimates of log p(x) should agree with
        >>> exact.shape, bool((oracle.kl_to_posterior(x).abs() < 1e-12).all())
        (torch.Size([4]), True)
    """

    def __init__(
        self,
        data_dim: int = 5,
        latent_dim: int = 2,
        *,
        noise: float = 0.7,
        orthogonal: bool = True,
        shift: float = 0.0,
        stretch: float = 1.0,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
    ):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(data_dim, latent_dim, generator=generator, dtype=dtype)
        if orthogonal:
            weight = torch.linalg.qr(weight)[0] * torch.linspace(0.8, 1.6, latent_dim, dtype=dtype)
        self.weight = nn.Parameter(weight.contiguous())  # Pyro's store would copy others
        self.bias = nn.Parameter(0.3 * torch.randn(data_dim, generator=generator, dtype=dtype))
        self.log_noise = nn.Parameter(torch.tensor(math.log(noise), dtype=dtype))
        precision = torch.eye(latent_dim, dtype=dtype) + weight.T @ weight / noise**2
        scale = precision.diagonal().rsqrt()
        gain = torch.linalg.solve(precision, weight.T) / noise**2
        self.gain = nn.Parameter(gain.contiguous())
        self.offset = nn.Parameter(-gain @ self.bias.detach() + shift * scale)
        self.log_scale = nn.Parameter((stretch * scale).log())

    def model(self, x: Tensor) -> Tensor:
        """The generative program of x, ``(B, data_dim)``; sites ``"z"`` and ``"x"``."""
        register_parameters(self, f"linear_gaussian{id(self)}")
        zeros = torch.zeros_like(self.offset)
        with pyro.plate("data", x.shape[0], dim=-1):
            z = pyro.sample("z", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
            return pyro.sample("x", self._likelihood(z), obs=x)

    def layered_model(self, x: Tensor) -> Tensor:
        """The same p(x) with two latent sites.

        ``"a"`` has variance 0.36, and ``"b"``, which is z, has variance 0.64 around a.
        """
        register_parameters(self, f"linear_gaussian{id(self)}")
        zeros = torch.zeros_like(self.offset)
        with pyro.plate("data", x.shape[0], dim=-1):
            a = pyro.sample("a", dist.Normal(zeros, torch.full_like(zeros, 0.6)).to_event(1))
            z = pyro.sample("b", dist.Normal(a, 0.8).to_event(1))
            return pyro.sample("x", self._likelihood(z), obs=x)

    def _likelihood(self, z: Tensor) -> Any:
        """p(x | z) for z of shape ``(*batch, latent_dim)``."""
        return dist.Normal(z @ self.weight.T + self.bias, self.log_noise.exp()).to_event(1)

    def guide(self, x: Tensor) -> Tensor:
        """The diagonal Gaussian guide."""
        register_parameters(self, f"linear_gaussian{id(self)}")
        with pyro.plate("data", x.shape[0], dim=-1):
            return pyro.sample(
                "z", dist.Normal(x @ self.gain.T + self.offset, self.log_scale.exp()).to_event(1)
            )

    def log_prob(self, x: Tensor) -> Tensor:
        """``(B,)``: log p(x), exact."""
        eye = torch.eye(len(self.bias), dtype=x.dtype)
        covariance = self.weight @ self.weight.T + self.log_noise.exp() ** 2 * eye
        return dist.MultivariateNormal(self.bias, covariance).log_prob(x)

    def posterior(self, x: Tensor) -> Any:
        """p(z | x), exact: a multivariate normal of batch shape ``(B,)``."""
        variance = self.log_noise.exp() ** 2
        precision = (
            torch.eye(len(self.offset), dtype=x.dtype) + self.weight.T @ self.weight / variance
        )
        mean = torch.linalg.solve(precision, self.weight.T @ (x - self.bias).T).T / variance
        return dist.MultivariateNormal(mean, precision_matrix=precision)

    def kl_to_posterior(self, x: Tensor) -> Tensor:
        """``(B,)``: KL(q(z | x) || p(z | x)), exact. The ELBO plus this KL is log p(x)."""
        guide = dist.MultivariateNormal(
            x @ self.gain.T + self.offset, scale_tril=torch.diag_embed(self.log_scale.exp())
        )
        return torch.distributions.kl_divergence(guide, self.posterior(x))

    @torch.no_grad()
    def sample(self, num_data: int, seed: int = 0) -> Tensor:
        """``(num_data, data_dim)`` data from the model; the global random state does not change."""
        generator = torch.Generator().manual_seed(seed)
        like = {"generator": generator, "dtype": self.bias.dtype}
        p_x = self._likelihood(torch.randn(num_data, len(self.offset), **like)).base_dist
        return p_x.loc + p_x.scale * torch.randn(num_data, len(self.bias), **like)


class DiscreteMixture(nn.Module):
    r"""A discrete latent of few values over Bernoulli data, summed exactly.

    .. math:: c \sim \mathrm{Categorical}(\pi), \quad
              x_i \mid c \sim \mathrm{Bernoulli}(\mathrm{sigmoid}(l_{ci})), \quad
              q(c \mid x) = \mathrm{Categorical}(\mathrm{softmax}(Ax + a))

    Args:
        data_dim: Number of binary elements of x.
        num_classes: Number of values of c.
        exact_guide: Start the guide at the exact posterior, which its family contains, in place of
            random values.
        seed: Random seed of the parameters; the global random state does not change.
        dtype: Type of all parameters.

    Example:
        >>> oracle = DiscreteMixture(data_dim=6, num_classes=4, exact_guide=True)
        >>> x = oracle.sample(5)
        >>> bool(oracle.log_guide(x).allclose(oracle.log_joint(x) - oracle.log_prob(x)))
        True
    """

    def __init__(
        self,
        data_dim: int = 6,
        num_classes: int = 4,
        *,
        exact_guide: bool = False,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
    ):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=dtype)

        self.class_logits = nn.Parameter(0.5 * normal(num_classes))
        self.pixel_logits = nn.Parameter(1.5 * normal(num_classes, data_dim))
        slope, offset = 0.5 * normal(num_classes, data_dim), 0.5 * normal(num_classes)
        if exact_guide:
            slope = self.pixel_logits.detach().clone()
            offset = self.class_logits.detach() - nn.functional.softplus(
                self.pixel_logits.detach()
            ).sum(-1)
        self.slope, self.offset = nn.Parameter(slope), nn.Parameter(offset)

    def model(self, x: Tensor) -> Tensor:
        """The generative program of x, ``(B, data_dim)``; sites ``"c"`` and ``"x"``."""
        register_parameters(self, f"discrete_mixture{id(self)}")
        with pyro.plate("data", x.shape[0], dim=-1):
            c = pyro.sample("c", dist.Categorical(logits=self.class_logits))
            return pyro.sample("x", dist.Bernoulli(logits=self.pixel_logits[c]).to_event(1), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """The amortised categorical guide."""
        register_parameters(self, f"discrete_mixture{id(self)}")
        with pyro.plate("data", x.shape[0], dim=-1):
            return pyro.sample("c", dist.Categorical(logits=x @ self.slope.T + self.offset))

    def log_joint(self, x: Tensor) -> Tensor:
        """``(num_classes, B)``: log p(x, c) for every c."""
        log_x = dist.Bernoulli(logits=self.pixel_logits[:, None]).to_event(1).log_prob(x)
        return self.class_logits.log_softmax(-1)[:, None] + log_x

    def log_guide(self, x: Tensor) -> Tensor:
        """``(num_classes, B)``: log q(c | x) for every c."""
        return (x @ self.slope.T + self.offset).log_softmax(-1).T

    def log_prob(self, x: Tensor) -> Tensor:
        """``(B,)``: log p(x), exact."""
        return self.log_joint(x).logsumexp(0)

    @torch.no_grad()
    def sample(self, num_data: int, seed: int = 0) -> Tensor:
        """``(num_data, data_dim)`` data from the model; the global random state does not change."""
        generator = torch.Generator().manual_seed(seed)
        c = torch.multinomial(
            self.class_logits.softmax(-1), num_data, replacement=True, generator=generator
        )
        return torch.bernoulli(self.pixel_logits[c].sigmoid(), generator=generator)


@torch.no_grad()
def quadrature(
    prior: Callable[[], Any],
    likelihood: Callable[[Tensor], Any],
    x: Tensor,
    *,
    low: float = -9.0,
    high: float = 9.0,
    num_points: int = 401,
    latent_dim: int | None = None,
    data_chunk: int = 16,
) -> Tensor:
    r"""``(B,)``: :math:`\log \int p(x \mid z)\, p(z)\, dz` on a grid, for one or two dimensions of
    z.

    The trapezoidal rule is used in each dimension. For smooth integrands that vanish at the ends,
    it converges faster than any power of the step. Sums run in float64.

    Args:
        prior: ``prior()`` is p(z), event shape ``(latent_dim,)``.
        likelihood: ``likelihood(z)`` is p(x | z), batch shape of z without its last dimension.
        x: Data, ``(B, *data_shape)``.
        low: Lower end of the grid in each dimension.
        high: Upper end; nearly all mass of p(x, z) must lie between the two.
        num_points: Grid points in each dimension.
        latent_dim: Dimension of z; by default that of the prior.
        data_chunk: Number of data to evaluate at once.

    Raises:
        ValueError: If z has more than two dimensions.

    Example:
        >>> normal = lambda loc: dist.Normal(loc, 1.0).to_event(1)
        >>> found = quadrature(lambda: normal(torch.zeros(1)), normal, torch.zeros(1, 1))
        >>> round(found.item(), 6)  # x is normal with variance 2: -log(4 pi) / 2
        -1.265512
    """
    p_z = prior()
    dim = latent_dim or p_z.event_shape[-1]
    if dim not in (1, 2):
        raise ValueError(
            f"Quadrature covers one- and two-dimensional z, found {dim} dimensions. "
            "Use log_marginal."
        )
    like = p_z.sample()
    axis = torch.linspace(low, high, num_points, dtype=like.dtype, device=like.device)
    z = torch.cartesian_prod(*[axis] * dim).reshape(-1, 1, dim)  # (points, 1, D)
    log_step = dim * math.log((high - low) / (num_points - 1))
    log_z = p_z.log_prob(z).double()  # (points, 1)
    log_z = log_z.nan_to_num(nan=-math.inf)  # such as beyond the support
    p_x = likelihood(z)
    results = [
        torch.logsumexp(log_z + p_x.log_prob(chunk.unsqueeze(0)).double(), 0)
        for chunk in x.split(data_chunk)
    ]
    return torch.cat(results) + log_step
