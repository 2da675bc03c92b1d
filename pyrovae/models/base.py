"""What the declared models have in common: parameters, checks, copies, and short forms."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self, TypeVar

import numpy as np
import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pyrovae import posteriors, priors
from pyrovae.data.arguments import as_arguments, is_several
from pyrovae.data.arrays import check_finite
from pyrovae.data.loaders import gathered
from pyrovae.data.rows import Rows
from pyrovae.declare import is_count, plain
from pyrovae.likelihoods import Bernoulli, Likelihood
from pyrovae.models.forms import Forms, as_tensor
from pyrovae.models.registered import Registered
from pyrovae.models.shipping import Shipping
from pyrovae.nets import MLP, Recipe, last_bias
from pyrovae.nets.recipe import as_last_layer
from pyrovae.posteriors import Posterior
from pyrovae.priors import Prior

__all__ = ["Model", "check_shape", "check_size", "check_spaces", "join", "unbound"]

T = TypeVar("T")


class Model(Shipping, Forms, Registered, ABC):
    """Base of the declared models: modules that make two Pyro programs, ``model`` and ``guide``.

    A copy or an unpickled model shares no parameter with its original, whatever Pyro's global
    parameter store holds.

    Args:
        data_shape: Shape of one datum.

    Example:
        >>> import pyrovae as pv
        >>> vae = pv.VAE(data_shape=3, latent_dim=2)
        >>> vae.encode(torch.ones(5, 3)).batch_shape, vae.sample(4).shape
        (torch.Size([5]), torch.Size([4, 3]))
    """

    prior: Any
    likelihood: Likelihood

    def __init__(self, data_shape: Sequence[int] | int):
        super().__init__()
        self.data_shape = check_shape(data_shape)

    @abstractmethod
    def model(self, x: Tensor) -> Any:
        """Generative program."""

    @abstractmethod
    def guide(self, x: Tensor) -> Any:
        """Variational program."""

    @abstractmethod
    def encode(self, x: Any) -> Any:
        """The distribution of the latent given x, batch shape ``(B,)``."""

    def forward(self, *data: Any) -> Any:
        """Same as :meth:`encode`."""
        return self.encode(*data)

    @torch.no_grad()
    def initialize_from(self, data: Any) -> Self:
        """Set the decoder's last bias so that the likelihood's mean is the mean of the data.

        A prior that starts at data, such as ``priors.Vamp(start="data")``, is started, too.

        Args:
            data: Training data ``(N, *data_shape)`` of any kind that :func:`pyrovae.fit` takes as
                arrays, or a tuple that begins with them.

        References:
            Importance Weighted Autoencoders (Burda et al., 2016), section 5,
            `arXiv:1509.00519 <https://arxiv.org/abs/1509.00519>`_.

        Raises:
            TypeError: If the data are not floating point.
            ValueError: If their shape does not fit, if the likelihood has no such rule, or if the
                decoder does not end in a bias for each output or channel.
        """
        like = self._like
        x = self.likelihood.read(data[0] if is_several(data) else data)
        missing = self.likelihood.missing
        x = as_arguments(x, device=like.device, dtype=like.dtype, missing=missing)[0]
        Model.check(self, x if isinstance(x, Tensor) else x[:1], support=False)
        mean = _mean(x).to(like)
        if missing:  # a column without any value has no mean
            mean = self.likelihood.fill(mean[None])[0][0]
        bias = self.likelihood.initial_bias(mean)
        target = last_bias(self.likelihood.decoder)
        if bias is None or target is None or bias.numel() % target.numel():
            raise ValueError(
                f"{self.likelihood!r} with this decoder cannot start at the data mean: it takes a "
                "likelihood with initial_bias and a decoder whose last layer has a bias for each "
                "output, or for each channel of them."
            )
        # The bias of a convolution is shared by all pixels of its channel.
        bias = as_last_layer(self.likelihood.decoder, bias)
        target.copy_(bias.reshape(target.numel(), -1).mean(1))
        if getattr(self.prior, "starts_at_data", False):
            filled = torch.where(x.isnan(), mean, x) if isinstance(x, Tensor) else x
            self.prior.initialize_from(filled)
        return self

    def check(self, x: Any, *, support: bool = True) -> None:
        """Raise an error if x cannot be data of this model.

        Kind, shape and dtype are checked, and, where Pyro's validation is on, the support.

        Args:
            x: Data.
            support: Whether to check that values lie in the likelihood's support.

        Raises:
            TypeError: If x is not a floating-point tensor.
            ValueError: If its shape is not ``(B, *data_shape)``, or a value lies outside the
                support.
        """
        if not isinstance(x, Tensor):
            raise TypeError(
                f"The VAE takes tensors, found {type(x).__name__}. Use torch.as_tensor(x), or "
                "vae.read(x) for a data frame."
            )
        if x.dim() != 1 + len(self.data_shape) or tuple(x.shape[1:]) != self.data_shape:
            raise ValueError(
                f"Data must have shape (B, {', '.join(map(str, self.data_shape))}), found "
                f"{tuple(x.shape)}."
            )
        if not x.is_floating_point():
            raise TypeError(
                f"Data must be floating point, found {x.dtype}. Use x.float(), and divide pixels "
                "by 255 where the likelihood takes values in [0, 1]."
            )
        if support and is_validation_enabled():
            self.likelihood.check(x)

    def _bind_likelihood(
        self, likelihood: Likelihood | None, decoder: Recipe | nn.Module | None, latent_dim: int
    ) -> None:
        decoder = MLP(300, 300) if decoder is None else decoder
        self.likelihood = unbound(likelihood, Likelihood, Bernoulli).bind(
            latent_dim=latent_dim, data_shape=self.data_shape, decoder=decoder
        )

    def _take_precision_of(self, *networks: Any) -> None:
        """Compute in float64 throughout where a module that was given does."""
        given = [net for net in networks if isinstance(net, nn.Module)]
        if any(p.dtype == torch.float64 for net in given for p in net.parameters()):
            self.double()

    @staticmethod
    def _reading(likelihood: Likelihood | None, encoder: Recipe | nn.Module | None) -> Any:
        """The encoder, with what it is to see of x put before it."""
        encoder = MLP(300, 300) if encoder is None else encoder
        return likelihood.reading(encoder) if isinstance(likelihood, Likelihood) else encoder

    def _decode(self, *latents: Tensor, mean: bool) -> Tensor:
        """E[x | latents], or a draw from p(x | latents)."""
        distribution = self.likelihood(join(*latents))
        return self.likelihood.mean(distribution) if mean else distribution.sample()

    def _as_data(self, x: Any) -> Tensor:
        """Data as a tensor of the parameters' dtype and device, or an error."""
        if isinstance(x, Dataset | DataLoader):
            x = gathered(x, 1, "data")  # labels in its items are left out
        (x,) = x if is_several(x) and len(x) == 1 else (x,)
        x = as_tensor(self.likelihood.read(x), self._like)
        Model.check(self, x, support=False)  # subclasses may check more than x
        if is_validation_enabled():
            check_finite(x, "The data hold", missing=self.likelihood.missing)
        return x

    @property
    def _like(self) -> Tensor:
        """A tensor of the parameters' dtype and device."""
        return next(self.parameters())


def _mean(x: Tensor | Rows) -> Tensor:
    """The mean of what is not missing."""
    if isinstance(x, Tensor):
        return x.nanmean(0)
    return torch.stack([piece.double().sum(0) for _, piece in x.pieces()]).sum(0) / len(x)


def join(*tensors: Tensor) -> Tensor:
    """Concatenate along the last dimension; the other dimensions broadcast."""
    if len(tensors) == 1:
        return tensors[0]
    batch = torch.broadcast_shapes(*(t.shape[:-1] for t in tensors))
    return torch.cat([t.expand(*batch, t.shape[-1]) for t in tensors], -1)


def check_shape(data_shape: Sequence[int] | int) -> tuple[int, ...]:
    """The data shape as a tuple; a ValueError unless it is made of positive integers."""
    shape = plain((data_shape,) if isinstance(data_shape, int | np.integer) else tuple(data_shape))
    if not shape or not all(map(is_count, shape)):
        raise ValueError(f"data_shape must be one or more positive integers, found {data_shape!r}.")
    return shape


def check_size(name: str, value: Any) -> int:
    """The value; a ValueError unless it is a positive integer."""
    if not is_count(value):
        raise ValueError(f"{name} must be a positive integer, found {value!r}.")
    return int(value)


def unbound(part: Any, kind: type[T], default: type[T]) -> T:
    """A copy of a declared prior, likelihood or posterior, ready to be sized; or the default.

    Raises:
        TypeError: If it is not an instance of ``kind``.
    """
    if part is None:
        return default()
    if isinstance(part, type) and issubclass(part, kind):
        raise TypeError(f"Give an instance: {part.__name__}(...), found the class itself.")
    if not isinstance(part, kind):
        raise TypeError(
            f"{kind.__name__.lower()} must be one of pyrovae's or a subclass of "
            f"{kind.__module__}.{kind.__name__}, found {type(part).__name__}."
            + f" Give an object, such as {part}(), and not its name."
            * isinstance(part, str)
        )
    return copy.deepcopy(part)


def check_spaces(prior: Prior | Posterior, posterior: Posterior) -> None:
    """Raise a ValueError, which names alternatives, unless prior and posterior share one space."""
    if prior.space == posterior.space:
        left, right = (getattr(part, "block_shape", None) for part in (prior, posterior))
        if left is not None and right is not None and left != right:
            raise ValueError(
                f"{prior!r} has {left[0]} latents of {left[1]} categories, {posterior!r} has "
                f"{right[0]} of {right[1]}. Give both the same num_categories."
            )
        return
    raise ValueError(
        f"{prior!r} lives on the space {prior.space!r}, but {posterior!r} on {posterior.space!r}. "
        f"With this prior take one of posteriors: {_names(posteriors, 'Posterior', prior.space)}; "
        f"with this posterior one of priors: {_names(priors, 'Prior', posterior.space, 'Vamp')}."
    )


def _names(module: Any, base: str, space: str, *further: str) -> str:
    """The classes of a module that live on a space."""
    names = [n for n in module.__all__ if n != base and getattr(module, n).space == space]
    return ", ".join([*names, *further]) or f"a {base} of your own"
