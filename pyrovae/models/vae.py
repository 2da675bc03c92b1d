"""The VAE: parts in, two Pyro programs out."""

from collections.abc import Sequence
from typing import Any

import pyro
import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor, nn

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
from pyrovae.nets import MLP, Recipe
from pyrovae.posteriors import DiagonalNormal, Posterior
from pyrovae.priors import Prior, StandardNormal

__all__ = ["VAE"]


class VAE(Pair):
    r"""A variational autoencoder, declared by its parts.

    .. math:: p(x, z) = p(z)\, p(x \mid z), \qquad q(z \mid x)

    ``vae.model`` and ``vae.guide`` are plain Pyro programs of x, shape ``(B, *data_shape)``, with a latent site
    ``"z"`` and an observed site ``"x"`` in the plate ``"data"``. Whatever takes a Pyro model and guide takes
    them: stock :class:`pyro.infer.SVI`, :func:`pyrovae.fit`, :func:`pyrovae.log_marginal`.

    Parts are declarations: the VAE keeps a copy of each, sized. Networks given as modules are used as they are.

    Args:
        data_shape: Shape of one datum, such as ``(28, 28)``.
        latent_dim: Dimension D of z.
        prior: p(z); default :class:`~pyrovae.priors.StandardNormal`.
        likelihood: p(x | z); default :class:`~pyrovae.likelihoods.Bernoulli`.
        posterior: q(z | x); default :class:`~pyrovae.posteriors.DiagonalNormal`.
        encoder, decoder: A net recipe, or a module of the right size; default ``nets.MLP(300, 300)``.

    Raises:
        TypeError: If a part or network is of another kind.
        ValueError: If sizes are not positive, a network's sizes do not fit, or prior and posterior live on
            different spaces.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014).
    """

    def __init__(
        self,
        data_shape: Sequence[int] | int,
        latent_dim: int,
        *,
        prior: Prior | None = None,
        likelihood: Likelihood | None = None,
        posterior: Posterior | None = None,
        encoder: Recipe | nn.Module | None = None,
        decoder: Recipe | nn.Module | None = None,
    ):
        super().__init__()
        self.data_shape = check_shape(data_shape)
        self.latent_dim = check_size("latent_dim", latent_dim)
        encoder = MLP(300, 300) if encoder is None else encoder
        decoder = MLP(300, 300) if decoder is None else decoder
        self._nets = describe(encoder), describe(decoder)
        sizes = {"latent_dim": latent_dim, "data_shape": self.data_shape}
        self.posterior = own(posterior, Posterior, DiagonalNormal).bind(encoder=encoder, **sizes)
        self.likelihood = own(likelihood, Likelihood, Bernoulli).bind(decoder=decoder, **sizes)
        self.prior = own(prior, Prior, StandardNormal).bind(posterior=self.posterior, **sizes)
        check_spaces(self.prior, self.posterior)

    def __repr__(self) -> str:
        return declaration(
            self,
            {"data_shape": self.data_shape, "latent_dim": self.latent_dim},
            {"prior": self.prior},
            {"likelihood": self.likelihood},
            {"posterior": self.posterior},
            {"encoder": self._nets[0]},
            {"decoder": self._nets[1]},
        )

    def forward(self, x: Tensor) -> Any:
        """q(z | x), as :meth:`encode`."""
        return self.encode(x)

    def model(self, x: Tensor) -> Tensor:
        """Generative program: z from the prior, x from the likelihood given z, observed."""
        self.check(x)
        self.register_parameters("likelihood", "prior")
        with pyro.plate("data", x.shape[0], dim=-1):
            z = pyro.sample("z", self.prior())  # (*K, B, D)
            return pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """Variational program: z from the posterior given x."""
        self.check(x, support=False)
        self.register_parameters("posterior")
        with pyro.plate("data", x.shape[0], dim=-1):
            return pyro.sample("z", self.posterior(x))  # (*K, B, D)

    @torch.no_grad()
    def sample(self, num_samples: int = 1, *, mean: bool = False) -> Tensor:
        """Draws from the model, ``(num_samples, *data_shape)``; with ``mean``, E[x | z] of the drawn z instead."""
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, found {num_samples}.")
        return self.decode(self.prior().sample((num_samples,)), mean=mean)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, *, mean: bool = True) -> Tensor:
        """``(B, *data_shape)``: x encoded to one draw of z and decoded again, as E[x | z] or as a draw."""
        return self.decode(self.encode(x).sample(), mean=mean)

    def encode(self, x: Tensor) -> Any:
        """The distribution q(z | x), batch shape ``(B,)``."""
        self.check(x, support=False)
        return self.posterior(x)

    def decode(self, z: Tensor, *, mean: bool = True) -> Tensor:
        """``(*batch, *data_shape)``: E[x | z], or with ``mean=False`` a draw from p(x | z)."""
        if z.shape[-1:] != (self.latent_dim,):
            raise ValueError(
                f"z must end in latent_dim={self.latent_dim}, found shape {tuple(z.shape)}."
            )
        distribution = self.likelihood(z)
        return self.likelihood.mean(distribution) if mean else distribution.sample()

    @torch.no_grad()
    def interpolate(self, start: Tensor, end: Tensor, steps: int = 8) -> Tensor:
        """``(steps, B, *data_shape)``: E[x | z] along straight lines between the codes of two batches of data.

        Codes are posterior means where there are any, else draws.
        """
        if steps < 2:
            raise ValueError(f"steps must be at least 2, found {steps}.")
        ends = [_centre(self.encode(x)) for x in (start, end)]
        weight = torch.linspace(0, 1, steps, dtype=ends[0].dtype, device=ends[0].device).reshape(
            -1, 1, 1
        )
        return self.decode(ends[0] + weight * (ends[1] - ends[0]))

    def check(self, x: Any, *, support: bool = True) -> None:
        """Raise if x is not data for this VAE: kind, shape, dtype and, with Pyro's validation on, support.

        Raises:
            TypeError: If x is no floating tensor.
            ValueError: If its shape is not ``(B, *data_shape)`` or a value lies outside the support.
        """
        check_data(x, self.data_shape)
        if support and is_validation_enabled():
            self.likelihood.check(x)


def _centre(distribution: Any) -> Tensor:
    try:
        return distribution.mean
    except NotImplementedError:
        return distribution.sample()
