"""A VAE with two stochastic layers."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyrovae.likelihoods import Likelihood
from pyrovae.models.base import Model, check_size, check_spaces, join, unbound
from pyrovae.models.joint import JointPosterior, as_recipe, conditional_prior
from pyrovae.nets import Recipe
from pyrovae.posteriors import DiagonalNormal, Posterior
from pyrovae.priors import Prior, StandardNormal

__all__ = ["HierarchicalVAE"]


class HierarchicalVAE(Model):
    r"""A VAE with two stochastic layers, both of which the decoder sees.

    .. math:: p(x, z_1, z_2) = p(z_2)\, p(z_1 \mid z_2)\, p(x \mid z_1, z_2), \qquad
              q(z_1, z_2 \mid x) = q(z_2 \mid x)\, q(z_1 \mid x, z_2)

    ``model`` and ``guide`` are plain Pyro programs of x, ``(B, *data_shape)``, with the latent
    sites ``"z2"`` and ``"z1"``, in that order in both, and the observed site ``"x"``, in the plate
    ``"data"``. With ``priors.Vamp`` as prior, p(z2) is a mixture of :math:`q(z_2 \mid u_c)`.

    Args:
        data_shape: Shape of one datum.
        latent_dims: Dimensions (D1, D2) of z1 and z2, or one number for both.
        prior: p(z2); default standard normal.
        likelihood: p(x | z1, z2); default Bernoulli.
        posterior: Family of q(z2 | x) and of q(z1 | x, z2), which share no parameters; default
            diagonal normal.
        conditional: Family of p(z1 | z2), declared by a posterior; default diagonal normal.
        encoder: Recipe of the networks that see x, one for each layer; default ``MLP(300, 300)``.
        decoder: Recipe or module from (z1, z2), concatenated, to x; default ``MLP(300, 300)``.
        between: Recipe of the networks between the layers, that of p(z1 | z2) and that of
            q(z1 | x, z2), which sees features of x beside z2; default ``MLP(300)``.
        features: Number of features of x in q(z1 | x, z2).

    Raises:
        TypeError: If an argument is of another kind, or encoder or ``between`` is not a recipe.
        ValueError: If sizes do not fit, distributions live on different spaces, or p(z1 | z2) is a
            point mass.

    References:
        VAE with a VampPrior (Tomczak and Welling, 2018), section 4,
        `arXiv:1705.07120 <https://arxiv.org/abs/1705.07120>`_.

    Example:
        >>> vae = HierarchicalVAE((6,), latent_dims=(3, 2))
        >>> x = vae.sample(10)
        >>> vae.encode(x).sample().shape, vae.reconstruct(x).shape
        (torch.Size([10, 2]), torch.Size([10, 6]))
    """

    def __init__(
        self,
        data_shape: Sequence[int] | int,
        latent_dims: Sequence[int] | int = (40, 40),
        *,
        prior: Prior | None = None,
        likelihood: Likelihood | None = None,
        posterior: Posterior | None = None,
        conditional: Posterior | None = None,
        encoder: Recipe | None = None,
        decoder: Recipe | nn.Module | None = None,
        between: Recipe | None = None,
        features: int = 300,
    ):
        super().__init__(data_shape)
        dims: Any = (latent_dims,) * 2 if isinstance(latent_dims, Integral) else latent_dims
        if len(dims) != 2:
            raise ValueError(f"latent_dims must be two positive integers (D1, D2), found {dims!r}.")
        low, top = self.latent_dims = tuple(check_size("latent_dims", d) for d in dims)
        sizes: Any = {"latent_dim": top, "data_shape": self.data_shape}
        encoder, between = (
            as_recipe("encoder", encoder, 300, 300),
            as_recipe("between", between, 300),
        )
        top_posterior = unbound(posterior, Posterior, DiagonalNormal)
        self.top_posterior = top_posterior.bind(encoder=encoder, **sizes)
        self.low_posterior = JointPosterior(
            posterior, encoder, between, latent_dim=low, data_shape=self.data_shape,
            given_dim=top, features=features, role="q(z1 | x, z2)",
        )  # fmt: skip
        self.conditional = conditional_prior(
            conditional, "p(z1 | z2)", latent_dim=low, given_dim=top, encoder=between
        )
        self._bind_likelihood(likelihood, decoder, low + top)
        self.prior = unbound(prior, Prior, StandardNormal).bind(
            posterior=self.top_posterior, **sizes
        )
        check_spaces(self.prior, self.top_posterior)
        if self.conditional.space != self.low_posterior.posterior.space:
            raise ValueError(
                f"p(z1 | z2) = {self.conditional!r} lives on the space {self.conditional.space!r}, "
                f"but q(z1 | x, z2) = {self.low_posterior.posterior!r} on "
                f"{self.low_posterior.posterior.space!r}. Give conditional= the family of "
                "posterior=."
            )

    def model(self, x: Tensor) -> Tensor:
        """Generative program: z2, z1 given z2, and x given both, observed."""
        self.check(x)
        self.register_parameters("likelihood", "conditional", "prior")
        with pyro.plate("data", x.shape[0], dim=-1):
            z2 = pyro.sample("z2", self.prior())  # (*K, B, D2)
            z1 = pyro.sample("z1", self.conditional(z2))  # (*K, B, D1)
            return pyro.sample("x", self.likelihood(join(z1, z2)), obs=x)

    def guide(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Variational program: z2 given x, and z1 given x and z2."""
        self.check(x, support=False)
        self.register_parameters("top_posterior", "low_posterior")
        with pyro.plate("data", x.shape[0], dim=-1):
            z2 = pyro.sample("z2", self.top_posterior(x))
            return pyro.sample("z1", self.low_posterior(x, z2)), z2

    def encode(self, x: Any) -> Any:
        """The distribution q(z2 | x) of the top layer, batch shape ``(B,)``.

        Args:
            x: Data ``(B, *data_shape)``, an array or a tensor of floating-point numbers.
        """
        return self.top_posterior(self._as_data(x))

    def decode(self, z1: Tensor, z2: Tensor, *, mean: bool = True) -> Tensor:
        """``(*batch, *data_shape)``: E[x | z1, z2], or with ``mean=False`` a draw of x."""
        return self._decode(z1, z2, mean=mean)

    @torch.no_grad()
    def sample(self, num_samples: int = 1, *, mean: bool = False) -> Tensor:
        """``(num_samples, *data_shape)``: draws of x; with ``mean=True``, E[x | z1, z2] of drawn z.

        Raises:
            ValueError: If ``num_samples < 1``.
        """
        z2 = self.prior().sample((check_size("num_samples", num_samples),))
        return self.decode(self.conditional(z2).sample(), z2, mean=mean)

    @torch.no_grad()
    def reconstruct(self, x: Any, *, mean: bool = True) -> Tensor:
        """``(B, *data_shape)``: E[x | z1, z2], or a draw of x, at one draw of z2 and z1 given x."""
        x = self._as_data(x)
        z2 = self.top_posterior(x).sample()
        return self.decode(self.low_posterior(x, z2).sample(), z2, mean=mean)
