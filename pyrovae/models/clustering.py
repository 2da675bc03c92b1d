"""Clusters in latent space."""

from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
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
from pyrovae.models.joint import decoded
from pyrovae.nets import MLP, Recipe
from pyrovae.posteriors import DiagonalNormal, Posterior
from pyrovae.priors import GaussianMixture

__all__ = ["ClusteringVAE"]


class ClusteringVAE(Pair):
    r"""A mixture of Gaussians over z, whose component c is the cluster of x.

    .. math:: p(x, z, c) = \pi_c\, N(z; \mu_c, \operatorname{diag}\sigma_c^2)\, p(x \mid z), \qquad
              q(z, c \mid x) = q(z \mid x)\, p(c \mid z)

    Given z, the exact p(c | z) is known, so c costs no variance. There are two pairs of programs with the same
    parameters and the same bound:

    - ``model`` and ``guide``: c is summed out of the density of z. Sites ``"z"`` and ``"x"``; every estimator and
      evidence method takes them.
    - ``joint_model`` and ``joint_guide``: c is a site ``"c"``, marked for parallel enumeration.
      ``TraceEnum_ELBO`` sums it exactly, with ``joint_guide`` or, as a latent of the model alone, with ``guide``.
      Evidence sums c too, as any discrete site of few values; other estimators draw it.

    Args:
        data_shape: Shape of one datum.
        latent_dim: Dimension D of z.
        num_clusters: Number of components C.
        spread: Standard deviation of the components' initial means.
        likelihood: p(x | z); default Bernoulli.
        posterior: q(z | x); default diagonal normal.
        encoder, decoder: A net recipe, or a module of the right size; default ``MLP(300, 300)``.

    Raises:
        TypeError: If a part or network is of another kind.
        ValueError: If sizes do not fit, or the posterior does not live on R^D.

    References:
        Variational Deep Embedding (Jiang et al., 2017), equations 8 and 16.
    """

    def __init__(
        self,
        data_shape: Sequence[int] | int,
        latent_dim: int,
        num_clusters: int,
        *,
        spread: float = 1.0,
        likelihood: Likelihood | None = None,
        posterior: Posterior | None = None,
        encoder: Recipe | torch.nn.Module | None = None,
        decoder: Recipe | torch.nn.Module | None = None,
    ):
        super().__init__()
        self.data_shape = check_shape(data_shape)
        self.latent_dim = check_size("latent_dim", latent_dim)
        self.num_clusters = check_size("num_clusters", num_clusters)
        encoder = MLP(300, 300) if encoder is None else encoder
        decoder = MLP(300, 300) if decoder is None else decoder
        self._nets, self._spread = (describe(encoder), describe(decoder)), spread
        sizes = {"latent_dim": latent_dim, "data_shape": self.data_shape}
        self.posterior = own(posterior, Posterior, DiagonalNormal).bind(encoder=encoder, **sizes)
        self.likelihood = own(likelihood, Likelihood, Bernoulli).bind(decoder=decoder, **sizes)
        self.prior = GaussianMixture(num_clusters, spread=spread).bind(**sizes)
        check_spaces(self.prior, self.posterior)

    def __repr__(self) -> str:
        return declaration(
            self,
            {"data_shape": self.data_shape, "latent_dim": self.latent_dim},
            {"num_clusters": self.num_clusters, "spread": self._spread},
            {"likelihood": self.likelihood},
            {"posterior": self.posterior},
            {"encoder": self._nets[0]},
            {"decoder": self._nets[1]},
        )

    def model(self, x: Tensor) -> Tensor:
        """Generative program with c summed out: z, and x given z, observed."""
        self.check(x)
        self.register_parameters("likelihood", "prior")
        with pyro.plate("data", x.shape[0], dim=-1):
            z = pyro.sample("z", self.prior())  # (*K, B, D)
            return pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """Variational program: z given x."""
        self.check(x, support=False)
        self.register_parameters("posterior")
        with pyro.plate("data", x.shape[0], dim=-1):
            return pyro.sample("z", self.posterior(x))

    def joint_model(self, x: Tensor) -> Tensor:
        """Generative program with the cluster as a site: c, z given c, and x given z, observed."""
        self.check(x)
        self.register_parameters("likelihood", "prior")
        mixture = self.prior()
        with pyro.plate("data", x.shape[0], dim=-1):
            c = pyro.sample(
                "c", dist.Categorical(logits=mixture.logits), infer={"enumerate": "parallel"}
            )
            normal = dist.Normal(mixture.locs[c], mixture.scales[c], validate_args=False)
            z = pyro.sample("z", normal.to_event(1))
            return pyro.sample("x", self.likelihood(z), obs=x)

    def joint_guide(self, x: Tensor) -> Tensor:
        """Variational program with the cluster as a site: z given x, c given z."""
        self.check(x, support=False)
        self.register_parameters("posterior", "prior")
        with pyro.plate("data", x.shape[0], dim=-1):
            z = pyro.sample("z", self.posterior(x))
            logits = self.prior().component_log_prob(z)
            return pyro.sample(
                "c", dist.Categorical(logits=logits), infer={"enumerate": "parallel"}
            )

    def forward(self, x: Tensor) -> Any:
        """q(z | x), as :meth:`encode`."""
        return self.encode(x)

    def encode(self, x: Tensor) -> Any:
        """The distribution q(z | x), batch shape ``(B,)``."""
        self.check(x, support=False)
        return self.posterior(x)

    def decode(self, z: Tensor, *, mean: bool = True) -> Tensor:
        """``(*batch, *data_shape)``: E[x | z], or with ``mean=False`` a draw."""
        return decoded(self.likelihood, z, mean=mean)

    @torch.no_grad()
    def cluster(self, x: Tensor, *, num_samples: int = 16) -> Tensor:
        """``(B, C)``: q(c | x), the mean of p(c | z) over draws of z from q(z | x)."""
        z = self.encode(x).sample((check_size("num_samples", num_samples),))
        return self.prior.responsibilities(z).mean(0)

    @torch.no_grad()
    def sample(
        self, num_samples: int = 1, *, cluster: int | None = None, mean: bool = False
    ) -> Tensor:
        """Draws from the model or from one cluster, ``(num_samples, *data_shape)``; with ``mean``, E[x | z].

        Raises:
            ValueError: If there is no such cluster, or ``num_samples < 1``.
        """
        shape = (check_size("num_samples", num_samples),)
        mixture = self.prior()
        if cluster is None:
            return self.decode(mixture.sample(shape), mean=mean)
        if not 0 <= cluster < self.num_clusters:
            raise ValueError(f"cluster must lie in 0 ... {self.num_clusters - 1}, found {cluster}.")
        normal = dist.Normal(mixture.locs[cluster], mixture.scales[cluster])
        return self.decode(normal.sample(shape), mean=mean)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, *, mean: bool = True) -> Tensor:
        """``(B, *data_shape)``: x encoded to one draw of z and decoded again."""
        return self.decode(self.encode(x).sample(), mean=mean)

    def check(self, x: Any, *, support: bool = True) -> None:
        """Raise if x is not data for this VAE, as :meth:`pyrovae.VAE.check`."""
        check_data(x, self.data_shape)
        if support and is_validation_enabled():
            self.likelihood.check(x)
