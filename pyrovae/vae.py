"""The VAE: parts in, two Pyro programs out."""

import copy
import itertools
import math
from collections.abc import Sequence
from typing import Any

import pyro
import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor, nn

from pyrovae import posteriors, priors
from pyrovae.likelihoods import Bernoulli, Likelihood
from pyrovae.nets import MLP, Recipe, last_bias
from pyrovae.posteriors import DiagonalNormal, Posterior
from pyrovae.priors import Prior, StandardNormal
from pyrovae.programs import announce

__all__ = ["VAE"]

_serial = itertools.count()


class VAE(nn.Module):
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
        self.data_shape = _check_shape(data_shape)
        if isinstance(latent_dim, bool) or not isinstance(latent_dim, int) or latent_dim < 1:
            raise ValueError(f"latent_dim must be a positive integer, found {latent_dim!r}.")
        self.latent_dim = latent_dim
        encoder = MLP(300, 300) if encoder is None else encoder
        decoder = MLP(300, 300) if decoder is None else decoder
        self._nets = (
            repr(encoder) if isinstance(encoder, Recipe) else type(encoder).__name__,
            repr(decoder) if isinstance(decoder, Recipe) else type(decoder).__name__,
        )
        sizes = {"latent_dim": latent_dim, "data_shape": self.data_shape}
        self.posterior = _own(posterior, Posterior, DiagonalNormal).bind(encoder=encoder, **sizes)
        self.likelihood = _own(likelihood, Likelihood, Bernoulli).bind(decoder=decoder, **sizes)
        self.prior = _own(prior, Prior, StandardNormal).bind(posterior=self.posterior, **sizes)
        check_spaces(self.prior, self.posterior)
        self._serial = next(_serial)

    def __repr__(self) -> str:
        return (
            f"VAE(\n    data_shape={self.data_shape}, latent_dim={self.latent_dim},\n"
            f"    prior={self.prior!r},\n    likelihood={self.likelihood!r},\n    posterior={self.posterior!r},\n"
            f"    encoder={self._nets[0]},\n    decoder={self._nets[1]},\n)"
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        self._serial = next(_serial)  # a copy shares no parameter with its original

    def __getstate__(self) -> dict[str, Any]:
        for parameter in self.parameters():  # Pyro's store leaves a weak reference, which no pickle can hold
            vars(parameter).pop("unconstrained", None)
        return self.__dict__.copy()

    def forward(self, x: Tensor) -> Any:
        """q(z | x), as :meth:`encode`."""
        return self.encode(x)

    def model(self, x: Tensor) -> Tensor:
        """Generative program: z from the prior, x from the likelihood given z, observed."""
        self.check(x)
        announce(self.likelihood, f"vae{self._serial}.likelihood")
        announce(self.prior, f"vae{self._serial}.prior")
        with pyro.plate("data", x.shape[0], dim=-1):
            z = pyro.sample("z", self.prior())  # (*K, B, D)
            return pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """Variational program: z from the posterior given x."""
        self.check(x, support=False)
        announce(self.posterior, f"vae{self._serial}.posterior")
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
            raise ValueError(f"z must end in latent_dim={self.latent_dim}, found shape {tuple(z.shape)}.")
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
        weight = torch.linspace(0, 1, steps, dtype=ends[0].dtype, device=ends[0].device).reshape(-1, 1, 1)
        return self.decode(ends[0] + weight * (ends[1] - ends[0]))

    @torch.no_grad()
    def initialize_from(self, data: Tensor) -> "VAE":
        """Start the decoder's output bias where the likelihood's mean is the mean of ``data``.

        References:
            Importance Weighted Autoencoders (Burda et al., 2016), section 5.

        Raises:
            ValueError: If the likelihood has no such rule, or the decoder does not end in a bias for each output.
        """
        bias = self.likelihood.initial_bias(data.to(self._like).mean(0))
        target = last_bias(self.likelihood.decoder)
        if bias is None or target is None or target.numel() not in (bias.numel(), 1):
            raise ValueError(
                f"{self.likelihood!r} with this decoder cannot start at the data mean: it takes a likelihood with "
                "initial_bias and a decoder whose last layer has one bias for each output."
            )
        target.copy_(bias.reshape(-1) if target.numel() == bias.numel() else bias.mean())
        return self

    def fit(self, train: Any, **kwargs: Any) -> Any:
        """Short for :func:`pyrovae.fit` with this model and guide."""
        from pyrovae.training import fit

        return fit(self.model, self.guide, train, **kwargs)

    def log_marginal(self, data: Any, **kwargs: Any) -> Any:
        """Short for :func:`pyrovae.log_marginal` with this model and guide."""
        from pyrovae.evidence import log_marginal

        return log_marginal(self.model, self.guide, data, **kwargs)

    @property
    def _like(self) -> Tensor:
        """A tensor of the VAE's dtype and device."""
        return next(self.parameters())

    def check(self, x: Any, *, support: bool = True) -> None:
        """Raise if x is not data for this VAE: kind, shape, dtype and, with Pyro's validation on, support.

        Raises:
            TypeError: If x is no floating tensor.
            ValueError: If its shape is not ``(B, *data_shape)`` or a value lies outside the support.
        """
        if not isinstance(x, Tensor):
            raise TypeError(f"The VAE takes tensors, found {type(x).__name__}. Use torch.as_tensor(x).")
        if x.dim() != 1 + len(self.data_shape) or tuple(x.shape[1:]) != self.data_shape:
            raise ValueError(
                f"Data must have shape (B, {', '.join(map(str, self.data_shape))}), found {tuple(x.shape)}."
            )
        if not x.is_floating_point():
            raise TypeError(f"Data must be floating point, found {x.dtype}. Use x.float().")
        if support and is_validation_enabled():
            self.likelihood.check(x)


def check_spaces(prior: Prior, posterior: Posterior) -> None:
    """Raise a ValueError that names the alternatives unless prior and posterior live on the same space."""
    if prior.space == posterior.space:
        left, right = (getattr(part, "block_shape", None) for part in (prior, posterior))
        if left is not None and right is not None and left != right:
            raise ValueError(
                f"{prior!r} has {left[0]} latents of {left[1]} categories, {posterior!r} has {right[0]} of "
                f"{right[1]}. Give both the same num_categories."
            )
        return
    fitting_priors = [name for name in priors.__all__ if getattr(priors, name).space == posterior.space]
    fitting = [name for name in posteriors.__all__ if getattr(posteriors, name).space == prior.space]
    raise ValueError(
        f"{prior!r} lives on the space {prior.space!r}, but {posterior!r} on {posterior.space!r}. "
        f"With this prior take one of posteriors: {_names(fitting, 'Posterior')}; with this posterior one of "
        f"priors: {_names([*fitting_priors, 'Vamp'], 'Prior')}."
    )


def _names(found: list[str], base: str) -> str:
    return ", ".join(name for name in found if name != base) or f"a {base} of your own"


def _check_shape(data_shape: Sequence[int] | int) -> tuple[int, ...]:
    shape = (data_shape,) if isinstance(data_shape, int) else tuple(data_shape)
    if (
        not shape
        or any(isinstance(s, bool) or not isinstance(s, int) or s < 1 for s in shape)
        or not math.prod(shape)
    ):
        raise ValueError(f"data_shape must be one or more positive integers, found {data_shape!r}.")
    return shape


def _own(part: Any, kind: type, default: type) -> Any:
    """A copy of a declared part, or the default."""
    if part is None:
        return default()
    if isinstance(part, type) and issubclass(part, kind):
        raise TypeError(f"Give an instance: {part.__name__}(...), found the class itself.")
    if not isinstance(part, kind):
        raise TypeError(
            f"{kind.__name__.lower()} must be one of pyrovae's or a subclass of {kind.__module__}.{kind.__name__}, "
            f"found {type(part).__name__}."
        )
    return copy.deepcopy(part)


def _centre(distribution: Any) -> Tensor:
    try:
        return distribution.mean
    except NotImplementedError:
        return distribution.sample()
