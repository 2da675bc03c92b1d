"""Models with one latent z of x alone."""

from collections.abc import Sequence
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyrovae.distributions.tempered import tempered
from pyrovae.likelihoods import Likelihood
from pyrovae.models.base import Model, check_size, check_spaces, unbound
from pyrovae.models.forms import mean_of
from pyrovae.nets import Recipe
from pyrovae.posteriors import DiagonalNormal, Posterior
from pyrovae.priors import Prior, StandardNormal

__all__ = ["SingleLatentModel"]


class SingleLatentModel(Model):
    """Base of ``VAE`` and ``ClusteringVAE``: p(z) p(x | z), and q(z | x).

    Args:
        data_shape: Shape of one datum.
        latent_dim: Dimension D of z.
        prior: p(z).
        likelihood: p(x | z).
        posterior: q(z | x).
        encoder: A recipe, or a module of the right size.
        decoder: The same.
    """

    def __init__(
        self,
        data_shape: Sequence[int] | int,
        latent_dim: int,
        prior: Prior | None,
        likelihood: Likelihood | None,
        posterior: Posterior | None,
        encoder: Recipe | nn.Module | None,
        decoder: Recipe | nn.Module | None,
    ):
        super().__init__(data_shape)
        self.latent_dim = check_size("latent_dim", latent_dim)
        sizes: Any = {"latent_dim": latent_dim, "data_shape": self.data_shape}
        posterior = unbound(posterior, Posterior, DiagonalNormal)
        self.posterior = posterior.bind(encoder=self._reading(likelihood, encoder), **sizes)
        self._bind_likelihood(likelihood, decoder, latent_dim)
        self.prior = unbound(prior, Prior, StandardNormal).bind(posterior=self.posterior, **sizes)
        check_spaces(self.prior, self.posterior)
        self._take_precision_of(encoder, decoder)

    def model(self, x: Tensor) -> Tensor:
        """Generative program: z from the prior, and x given z from the likelihood, observed."""
        self.check(x)
        self.register_parameters("likelihood", "prior")
        with pyro.plate("data", x.shape[0], dim=-1):
            z = pyro.sample("z", self.prior())  # (*K, B, D)
            return pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """Variational program: z given x from the posterior."""
        self.check(x, support=False)
        self.register_parameters("posterior")
        with pyro.plate("data", x.shape[0], dim=-1):
            return pyro.sample("z", self.posterior(x))  # (*K, B, D)

    def encode(self, x: Any) -> Any:
        """The distribution q(z | x), batch shape ``(B,)``.

        Args:
            x: Data ``(B, *data_shape)``, an array or a tensor of floating-point numbers.
        """
        return self.posterior(self._as_data(x))

    def decode(self, z: Tensor, *, mean: bool = True) -> Tensor:
        """``(*batch, *data_shape)``: E[x | z], or with ``mean=False`` a draw from p(x | z).

        Raises:
            ValueError: If z does not end in ``latent_dim``.
        """
        if z.shape[-1:] != (self.latent_dim,):
            raise ValueError(
                f"z must end in latent_dim={self.latent_dim}, found shape {tuple(z.shape)}."
            )
        return self._decode(z, mean=mean)

    @torch.no_grad()
    def sample(self, num_samples: int = 1, *, mean: bool = False, temperature: float = 1.0) -> Any:
        """``(num_samples, *data_shape)``: draws of x; with ``mean=True``, E[x | z] of drawn z.

        Where :class:`~pyrovae.likelihoods.Columns` names a library, they are a frame.

        Args:
            num_samples: How many.
            mean: Return means in place of draws.
            temperature: Factor on the noise of the prior: on the scale of a normal, of each
                component of a mixture, or of the base variable of a flow. Below 1, draws are more
                typical and less diverse.

        Raises:
            ValueError: If ``num_samples < 1``, or the temperature is not positive or the prior has
                no such noise.
        """
        prior = self.prior() if temperature == 1 else tempered(self.prior(), temperature)
        z = prior.sample((check_size("num_samples", num_samples),))
        return self.likelihood.show(self.decode(z, mean=mean))

    @torch.no_grad()
    def reconstruct(self, x: Any, *, mean: bool = True) -> Any:
        """``(B, *data_shape)``: E[x | z], or a draw of x, at one draw of z from q(z | x).

        Where x is a frame, so is the result.
        """
        return self.likelihood.show(self.decode(self.encode(x).sample(), mean=mean), x)

    def _exported(self) -> Any:
        return {"x": self.data_shape}, {"z": (self.latent_dim,)}

    @torch.no_grad()
    def interpolate(self, start: Any, end: Any, steps: int = 8) -> Tensor:
        """``(steps, B, *data_shape)``: E[x | z] on lines between the codes of two batches of data.

        Codes are the means of q(z | x), or draws where there is no mean.

        Raises:
            ValueError: If ``steps < 2``.
        """
        if steps < 2:
            raise ValueError(f"steps must be at least 2, found {steps}.")
        both = [self.encode(x) for x in (start, end)]
        means = [mean_of(q) for q in both]
        first, last = (q.sample() if m is None else m for q, m in zip(both, means, strict=True))
        weight = torch.linspace(0, 1, steps, dtype=first.dtype, device=first.device)
        return self.decode(first + weight.reshape(-1, 1, 1) * (last - first))
