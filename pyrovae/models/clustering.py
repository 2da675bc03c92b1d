"""A VAE whose latent space has clusters."""

from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyrovae.distributions.tempered import tempered
from pyrovae.likelihoods import Likelihood
from pyrovae.models.base import check_size
from pyrovae.models.labels import as_labels, given_label, observe_label
from pyrovae.models.single import SingleLatentModel
from pyrovae.nets import Recipe
from pyrovae.posteriors import Posterior
from pyrovae.priors import GaussianMixture

__all__ = ["ClusteringVAE"]


class ClusteringVAE(SingleLatentModel):
    r"""A VAE with a Gaussian mixture as prior, whose component c is the cluster of x.

    .. math:: p(x, z, c) = \pi_c\, N(z; \mu_c, \operatorname{diag}\sigma_c^2)\, p(x \mid z), \qquad
              q(z, c \mid x) = q(z \mid x)\, p(c \mid z)

    Since p(c | z) is known exactly, c adds no variance. There are two pairs of programs with the
    same parameters and the same bound:

    - ``model`` and ``guide``: c is summed out of the density of z. The sites are ``"z"`` and
      ``"x"``; every estimator and evidence method takes them.
    - ``joint_model`` and ``joint_guide``: c is a site ``"c"``, marked for parallel enumeration.
      ``estimators.EnumELBO`` sums it exactly, and so does ``TraceEnum_ELBO``, which takes ``guide``
      as well, where c is a latent site of the model alone. Evidence sums c too, as any discrete
      site with few values; other estimators draw it. They also take the clusters of some data as
      known labels, ``(x, y)`` with -1 where unknown: the bound is then one on log p(x, c) where c
      is known.

    Args:
        data_shape: Shape of one datum.
        latent_dim: Dimension D of z.
        num_clusters: Number of components C.
        spread: Standard deviation of the components' initial means.
        likelihood: p(x | z); default Bernoulli.
        posterior: q(z | x); default diagonal normal.
        encoder: A recipe, or a module of the right size; default ``nets.MLP(300, 300)``.
        decoder: The same.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If sizes do not fit, or the posterior does not live on R^D.

    References:
        Variational Deep Embedding (Jiang et al., 2017), equations 8 and 16,
        `arXiv:1611.05148 <https://arxiv.org/abs/1611.05148>`_.

    Example:
        >>> vae = ClusteringVAE((6,), latent_dim=2, num_clusters=3)
        >>> x = vae.sample(10)
        >>> vae.cluster(x).shape, vae.sample(4, cluster=2).shape
        (torch.Size([10, 3]), torch.Size([4, 6]))
    """

    prior: GaussianMixture

    def __init__(
        self,
        data_shape: Sequence[int] | int,
        latent_dim: int,
        num_clusters: int,
        *,
        spread: float = 1.0,
        likelihood: Likelihood | None = None,
        posterior: Posterior | None = None,
        encoder: Recipe | nn.Module | None = None,
        decoder: Recipe | nn.Module | None = None,
    ):
        prior = GaussianMixture(check_size("num_clusters", num_clusters), spread=spread)
        super().__init__(data_shape, latent_dim, prior, likelihood, posterior, encoder, decoder)
        self.num_clusters = num_clusters

    def joint_model(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Generative program with the cluster as a site: c, z given c, and x given z, observed.

        Args:
            x: Data.
            y: The clusters of some data, integers ``(B,)``, -1 where unknown; those are observed.
        """
        self.check(x)
        self.register_parameters("likelihood", "prior")
        mixture = self.prior()
        with pyro.plate("data", x.shape[0], dim=-1):
            c = pyro.sample(
                "c", dist.Categorical(logits=mixture.logits), infer={"enumerate": "parallel"}
            )
            if y is not None:
                observe_label(c, self._labels(x, y), self.num_clusters, x)
            normal = dist.Normal(mixture.locs[c], mixture.scales[c], validate_args=False)
            z = pyro.sample("z", normal.to_event(1))
            return pyro.sample("x", self.likelihood(z), obs=x)

    def joint_guide(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Variational program with the cluster as a site: z given x, and c given z."""
        self.check(x, support=False)
        self.register_parameters("posterior", "prior")
        with pyro.plate("data", x.shape[0], dim=-1):
            z = pyro.sample("z", self.posterior(x))
            logits = self.prior().component_log_prob(z)
            law = dist.Categorical(logits=logits)
            if y is not None:
                law = given_label(logits, self._labels(x, y))
            return pyro.sample("c", law, infer={"enumerate": "parallel"})

    def _labels(self, x: Tensor, y: Tensor) -> Tensor:
        return as_labels(y, self.num_clusters, self._like, x.shape[0])

    @torch.no_grad()
    def cluster(self, x: Any, *, num_samples: int = 16) -> Tensor:
        """``(B, C)``: q(c | x), estimated by the mean of p(c | z) over draws of z from q(z | x).

        Raises:
            ValueError: If ``num_samples < 1``.
        """
        z = self.encode(x).sample((check_size("num_samples", num_samples),))
        return self.prior.responsibilities(z).mean(0)

    @torch.no_grad()
    def sample(
        self,
        num_samples: int = 1,
        *,
        cluster: int | None = None,
        mean: bool = False,
        temperature: float = 1.0,
    ) -> Any:
        """``(num_samples, *data_shape)``: draws of x; with ``mean=True``, E[x | z] of drawn z.

        Args:
            num_samples: How many.
            cluster: Draw z from this component; None for the whole mixture.
            mean: Return means in place of draws.
            temperature: Factor on the scales of the components.

        Raises:
            ValueError: If there is no such cluster, or ``num_samples < 1``.
        """
        if cluster is None:
            return super().sample(num_samples, mean=mean, temperature=temperature)
        if not 0 <= cluster < self.num_clusters:
            raise ValueError(f"cluster must lie in 0 ... {self.num_clusters - 1}, found {cluster}.")
        mixture = self.prior()
        normal = dist.Normal(mixture.locs[cluster], mixture.scales[cluster])
        z = tempered(normal, temperature).sample((check_size("num_samples", num_samples),))
        return self.likelihood.show(self.decode(z, mean=mean))
