"""Two stochastic layers."""

from collections.abc import Sequence
from typing import Any

import pyro
import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor

from pyrovae.likelihoods import Bernoulli, Likelihood
from pyrovae.models.base import (
    Pair,
    check_data,
    check_shape,
    check_size,
    check_spaces,
    declaration,
    describe,
    own,
)
from pyrovae.models.joint import JointPosterior, decoded, expect, join, with_density
from pyrovae.nets import MLP, Recipe
from pyrovae.posteriors import DiagonalNormal, Posterior
from pyrovae.priors import Prior, StandardNormal

__all__ = ["HierarchicalVAE"]


class HierarchicalVAE(Pair):
    r"""A VAE with two stochastic layers, both seen by the decoder.

    .. math:: p(x, z_1, z_2) = p(z_2)\, p(z_1 \mid z_2)\, p(x \mid z_1, z_2), \qquad
              q(z_1, z_2 \mid x) = q(z_2 \mid x)\, q(z_1 \mid x, z_2)

    ``model`` and ``guide`` are plain Pyro programs of x, ``(B, *data_shape)``, with latent sites ``"z2"`` and
    ``"z1"``, in that order in both, and the observed site ``"x"``, in the plate ``"data"``. ``priors.Vamp``
    on top mixes :math:`q(z_2 \mid u_c)`.

    Args:
        data_shape: Shape of one datum.
        latent_dims: Dimensions (D1, D2), from the data upwards, or one for both.
        prior: p(z2); default standard normal.
        likelihood: p(x | z1, z2); default Bernoulli.
        posterior: Family of both q(z2 | x) and q(z1 | x, z2); default diagonal normal. Each layer has its own.
        conditional: Family of p(z1 | z2), declared by a posterior part; default diagonal normal.
        encoder: Recipe of the networks that see x, one for each layer; default ``MLP(300, 300)``.
        decoder: Recipe or module from (z1, z2), concatenated, to x; default ``MLP(300, 300)``.
        between: Recipe of the networks between layers: p(z1 | z2), and q(z1 | x, z2) after the features of x.
        features: Features of x that q(z1 | x, z2) joins with z2.

    Raises:
        TypeError: If a part is of another kind, or the encoder no recipe.
        ValueError: If sizes do not fit, parts live on different spaces, or p(z1 | z2) is a point mass.

    References:
        VAE with a VampPrior (Tomczak and Welling, 2018), section 4.
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
        decoder: Recipe | torch.nn.Module | None = None,
        between: Recipe | None = None,
        features: int = 300,
    ):
        super().__init__()
        self.data_shape = check_shape(data_shape)
        latent_dims = (latent_dims,) * 2 if isinstance(latent_dims, int) else latent_dims
        if len(latent_dims) != 2:
            raise ValueError(
                f"latent_dims must be two positive integers (D1, D2), found {latent_dims!r}."
            )
        low, top = self.latent_dims = tuple(check_size("latent_dims", d) for d in latent_dims)
        encoder = MLP(300, 300) if encoder is None else encoder
        decoder = MLP(300, 300) if decoder is None else decoder
        between = MLP(300) if between is None else between
        expect(Recipe, "encoder", encoder)  # two networks are made of it
        expect(Recipe, "between", between)
        self._nets, self._features = (
            (describe(encoder), describe(decoder), describe(between)),
            features,
        )
        self.top_posterior = own(posterior, Posterior, DiagonalNormal).bind(
            latent_dim=top, data_shape=self.data_shape, encoder=encoder
        )
        self.low_posterior = JointPosterior(
            own(posterior, Posterior, DiagonalNormal),
            encoder,
            between,
            latent_dim=low,
            data_shape=self.data_shape,
            given_dim=top,
            features=features,
            role="q(z1 | x, z2)",
        )
        conditional = with_density(own(conditional, Posterior, DiagonalNormal), "p(z1 | z2)")
        self.conditional = conditional.bind(latent_dim=low, data_shape=(top,), encoder=between)
        self.likelihood = own(likelihood, Likelihood, Bernoulli).bind(
            latent_dim=low + top, data_shape=self.data_shape, decoder=decoder
        )
        self.prior = own(prior, Prior, StandardNormal).bind(
            latent_dim=top, data_shape=self.data_shape, posterior=self.top_posterior
        )
        check_spaces(self.prior, self.top_posterior)
        if self.conditional.space != self.low_posterior.posterior.space:
            raise ValueError(
                f"p(z1 | z2) = {self.conditional!r} lives on the space {self.conditional.space!r}, but "
                f"q(z1 | x, z2) = {self.low_posterior.posterior!r} on {self.low_posterior.posterior.space!r}. "
                "Give conditional= the family of posterior=."
            )

    def __repr__(self) -> str:
        return declaration(
            self,
            {"data_shape": self.data_shape, "latent_dims": self.latent_dims},
            {"prior": self.prior},
            {"likelihood": self.likelihood},
            {"posterior": self.top_posterior, "conditional": self.conditional},
            {"encoder": self._nets[0]},
            {"decoder": self._nets[1]},
            {"between": self._nets[2], "features": self._features},
        )

    def model(self, x: Tensor) -> Tensor:
        """Generative program: z2, z1 given z2, x given both, observed."""
        self.check(x)
        self.register_parameters("likelihood", "conditional", "prior")
        with pyro.plate("data", x.shape[0], dim=-1):
            z2 = pyro.sample("z2", self.prior())  # (*K, B, D2)
            z1 = pyro.sample("z1", self.conditional(z2))  # (*K, B, D1)
            return pyro.sample("x", self.likelihood(join(z1, z2)), obs=x)

    def guide(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Variational program: z2 given x, z1 given x and z2."""
        self.check(x, support=False)
        self.register_parameters("top_posterior", "low_posterior")
        with pyro.plate("data", x.shape[0], dim=-1):
            z2 = pyro.sample("z2", self.top_posterior(x))
            return pyro.sample("z1", self.low_posterior(x, z2)), z2

    def forward(self, x: Tensor) -> Any:
        """q(z2 | x), as :meth:`encode`."""
        return self.encode(x)

    def encode(self, x: Tensor) -> Any:
        """The top layer's distribution q(z2 | x), batch shape ``(B,)``."""
        self.check(x, support=False)
        return self.top_posterior(x)

    def decode(self, z1: Tensor, z2: Tensor, *, mean: bool = True) -> Tensor:
        """``(*batch, *data_shape)``: E[x | z1, z2], or with ``mean=False`` a draw."""
        return decoded(self.likelihood, join(z1, z2), mean=mean)

    @torch.no_grad()
    def sample(self, num_samples: int = 1, *, mean: bool = False) -> Tensor:
        """Draws from the model, ``(num_samples, *data_shape)``; with ``mean``, E[x | z1, z2] of the drawn z."""
        z2 = self.prior().sample((check_size("num_samples", num_samples),))
        return self.decode(self.conditional(z2).sample(), z2, mean=mean)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, *, mean: bool = True) -> Tensor:
        """``(B, *data_shape)``: x encoded to one draw of z2 and z1 and decoded again."""
        z2 = self.encode(x).sample()
        return self.decode(self.low_posterior(x, z2).sample(), z2, mean=mean)

    def check(self, x: Any, *, support: bool = True) -> None:
        """Raise if x is not data for this VAE, as :meth:`pyrovae.VAE.check`."""
        check_data(x, self.data_shape)
        if support and is_validation_enabled():
            self.likelihood.check(x)
