"""A VAE of x given labels or covariates."""

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
from pyrovae.priors import Prior, StandardNormal, Vamp

__all__ = ["ConditionalVAE"]


class ConditionalVAE(Pair):
    r"""p(x | y): labels or covariates y in model and guide.

    .. math:: p(x, z \mid y) = p(z \mid y)\, p(x \mid z, y), \qquad q(z \mid x, y)

    ``model`` and ``guide`` are plain Pyro programs of (x, y), so data is a tuple:
    ``cvae.fit((images, labels))``. y is floating, ``(B, condition_dim)``, or integer labels below
    ``condition_dim``, ``(B,)``, which become one-hot. Evidence is that of x given y, log p(x | y).

    Args:
        data_shape: Shape of one datum x.
        latent_dim: Dimension D of z.
        condition_dim: Size of y, or the number of labels.
        prior: A prior part makes p(z), the same for all y; a posterior part makes p(z | y), learned. Default
            standard normal.
        likelihood: p(x | z, y); default Bernoulli.
        posterior: q(z | x, y); default diagonal normal.
        encoder: Recipe of the network that sees x; default ``MLP(300, 300)``.
        decoder: Recipe or module from (z, y), concatenated, to x; default ``MLP(300, 300)``.
        joint: Recipe of the networks that see y: q(z | x, y) after the features of x, and p(z | y).
        features: Features of x that q joins with y.

    Raises:
        TypeError: If a part is of another kind, or the encoder no recipe.
        ValueError: If sizes do not fit, parts live on different spaces, p(z | y) is a point mass, or the prior is
            ``priors.Vamp``.

    References:
        Learning Structured Output Representation using Deep Conditional Generative Models (Sohn et al., 2015),
        equation 4; Semi-supervised Learning with Deep Generative Models (Kingma et al., 2014), equation 2, with
        p(z) in place of p(z | y).
    """

    def __init__(
        self,
        data_shape: Sequence[int] | int,
        latent_dim: int,
        condition_dim: int,
        *,
        prior: Prior | Posterior | None = None,
        likelihood: Likelihood | None = None,
        posterior: Posterior | None = None,
        encoder: Recipe | None = None,
        decoder: Recipe | torch.nn.Module | None = None,
        joint: Recipe | None = None,
        features: int = 300,
    ):
        super().__init__()
        self.data_shape = check_shape(data_shape)
        self.latent_dim = check_size("latent_dim", latent_dim)
        self.condition_dim = check_size("condition_dim", condition_dim)
        encoder = MLP(300, 300) if encoder is None else encoder
        decoder = MLP(300, 300) if decoder is None else decoder
        joint = MLP(300) if joint is None else joint
        expect(Recipe, "encoder", encoder)
        expect(Recipe, "joint", joint)
        self._nets, self._features = (
            (describe(encoder), describe(decoder), describe(joint)),
            features,
        )
        self.posterior = JointPosterior(
            own(posterior, Posterior, DiagonalNormal),
            encoder,
            joint,
            latent_dim=latent_dim,
            data_shape=self.data_shape,
            given_dim=condition_dim,
            features=features,
            role="q(z | x, y)",
        )
        self.likelihood = own(likelihood, Likelihood, Bernoulli).bind(
            latent_dim=latent_dim + condition_dim, data_shape=self.data_shape, decoder=decoder
        )
        if isinstance(prior, Vamp):
            raise ValueError(
                "Vamp mixes q(z | u) over pseudo-inputs u, but this posterior takes y as well. Use another prior, or "
                "a posterior part such as posteriors.DiagonalNormal() for a learned p(z | y)."
            )
        if isinstance(prior, Posterior):
            prior = with_density(own(prior, Posterior, DiagonalNormal), "p(z | y)")
            self.prior = prior.bind(
                latent_dim=latent_dim, data_shape=(condition_dim,), encoder=joint
            )
        else:
            self.prior = own(prior, Prior, StandardNormal).bind(
                latent_dim=latent_dim, data_shape=self.data_shape
            )
        check_spaces(self.prior, self.posterior.posterior)

    def __repr__(self) -> str:
        return declaration(
            self,
            {
                "data_shape": self.data_shape,
                "latent_dim": self.latent_dim,
                "condition_dim": self.condition_dim,
            },
            {"prior": self.prior},
            {"likelihood": self.likelihood},
            {"posterior": self.posterior.posterior},
            {"encoder": self._nets[0]},
            {"decoder": self._nets[1]},
            {"joint": self._nets[2], "features": self._features},
        )

    def model(self, x: Tensor, y: Tensor) -> Tensor:
        """Generative program of x given y."""
        y = self.check(x, y)
        self.register_parameters("likelihood", "prior")
        with pyro.plate("data", x.shape[0], dim=-1):
            z = pyro.sample("z", self._prior(y))  # (*K, B, D)
            return pyro.sample("x", self.likelihood(join(z, y)), obs=x)

    def guide(self, x: Tensor, y: Tensor) -> Tensor:
        """Variational program: z given x and y."""
        y = self.check(x, y, support=False)
        self.register_parameters("posterior")
        with pyro.plate("data", x.shape[0], dim=-1):
            return pyro.sample("z", self.posterior(x, y))

    def forward(self, x: Tensor, y: Tensor) -> Any:
        """q(z | x, y), as :meth:`encode`."""
        return self.encode(x, y)

    def encode(self, x: Tensor, y: Tensor) -> Any:
        """The distribution q(z | x, y), batch shape ``(B,)``."""
        return self.posterior(x, self.check(x, y, support=False))

    def decode(self, z: Tensor, y: Tensor, *, mean: bool = True) -> Tensor:
        """``(*batch, *data_shape)``: E[x | z, y], or with ``mean=False`` a draw."""
        return decoded(self.likelihood, join(z, self.condition(y)), mean=mean)

    @torch.no_grad()
    def sample(self, y: Tensor, *, mean: bool = False) -> Tensor:
        """One draw from p(x | y) for each row of y, ``(B, *data_shape)``; with ``mean``, E[x | z, y]."""
        y = self.condition(y)
        prior = self._prior(y)
        z = prior.expand((len(y),)).sample() if not prior.batch_shape else prior.sample()
        return self.decode(z, y, mean=mean)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, y: Tensor, *, mean: bool = True) -> Tensor:
        """``(B, *data_shape)``: x encoded with its y to one draw of z and decoded again."""
        return self.decode(self.encode(x, y).sample(), y, mean=mean)

    def condition(self, y: Any) -> Tensor:
        """y as the networks see it, ``(B, condition_dim)``: covariates as they are, integer labels one-hot.

        Raises:
            TypeError: If y is no tensor.
            ValueError: If its shape does not fit, or a label lies outside ``0 ... condition_dim - 1``.
        """
        if not isinstance(y, Tensor):
            raise TypeError(
                f"y must be a tensor, found {type(y).__name__}. Use torch.as_tensor(y)."
            )
        if not y.is_floating_point() and y.dim() == 1:
            if is_validation_enabled() and ((y < 0) | (y >= self.condition_dim)).any():
                raise ValueError(
                    f"Labels must lie in 0 ... {self.condition_dim - 1}, found {int(y.min())} to {int(y.max())}."
                )
            return torch.nn.functional.one_hot(y.long(), self.condition_dim).to(self._like.dtype)
        if y.dim() != 2 or y.shape[1] != self.condition_dim:
            raise ValueError(
                f"y must be floating with shape (B, {self.condition_dim}), or integer labels with shape (B,), found "
                f"{y.dtype} with shape {tuple(y.shape)}."
            )
        return y.to(self._like.dtype)

    def check(self, x: Any, y: Any, *, support: bool = True) -> Tensor:
        """Raise if (x, y) is not data for this VAE; else y as the networks see it."""
        check_data(x, self.data_shape)
        y = self.condition(y)
        if len(x) != len(y):
            raise ValueError(f"x and y must have as many rows, found {len(x)} and {len(y)}.")
        if support and is_validation_enabled():
            self.likelihood.check(x)
        return y

    def _prior(self, y: Tensor) -> Any:
        return self.prior(y) if isinstance(self.prior, Posterior) else self.prior()
