"""What the declared models have in common: parameters, checks, copies, and short forms."""

import copy
import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self, TypeVar

import numpy as np
import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor, nn

from pyrovae import posteriors, priors
from pyrovae.declare import Declared, is_count
from pyrovae.likelihoods import Bernoulli, Likelihood
from pyrovae.nets import MLP, Recipe, last_bias
from pyrovae.posteriors import Posterior
from pyrovae.priors import Prior
from pyrovae.programs import register_parameters

__all__ = ["Model", "as_tensor", "check_shape", "check_size", "check_spaces", "join", "unbound"]

_serial = itertools.count()
T = TypeVar("T")


class Model(Declared, nn.Module, ABC):
    """Base of the declared models: modules that make two Pyro programs, ``model`` and ``guide``.

    A copy or an unpickled model shares no parameter with its original, whatever Pyro's global
    parameter store holds.

    Args:
        data_shape: Shape of one datum.
    """

    prior: Any
    likelihood: Likelihood

    def __init__(self, data_shape: Sequence[int] | int):
        super().__init__()
        self.data_shape = check_shape(data_shape)
        self._serial = next(_serial)

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

    def fit(self, train: Any, **kwargs: Any) -> Any:
        """Short for :func:`pyrovae.fit` with this model and guide.

        With a prior that leaves each datum out of its own p(z), such as
        :class:`pyrovae.priors.Exemplar`, data are counted here, and a prior that has seen no data
        starts at these.

        Raises:
            ValueError: If such a prior was started from other data.
        """
        from pyrovae.training.fit import fit

        programs: Any = self
        if getattr(getattr(self, "prior", None), "leaves_one_out", False):
            from pyrovae.models.leave_one_out import LeaveOneOut

            programs = LeaveOneOut(self)
            x = self._as_data(train)
            self.prior.start_at(x)
            train = x, torch.arange(len(x))
        return fit(programs.model, programs.guide, train, **kwargs)

    def log_marginal(self, data: Any, **kwargs: Any) -> Any:
        """Short for :func:`pyrovae.log_marginal` with this model and guide."""
        from pyrovae.evidence import log_marginal

        return log_marginal(self.model, self.guide, data, **kwargs)

    @torch.no_grad()
    def initialize_from(self, data: Any) -> Self:
        """Set the decoder's last bias so that the likelihood's mean is the mean of the data.

        A prior that starts at data, such as ``priors.Vamp(start="data")``, is started, too.

        Args:
            data: Training data ``(N, *data_shape)``, an array or a tensor, or a tuple that begins
                with them.

        References:
            Importance Weighted Autoencoders (Burda et al., 2016), section 5,
            `arXiv:1509.00519 <https://arxiv.org/abs/1509.00519>`_.

        Raises:
            TypeError: If the data are not floating point.
            ValueError: If their shape does not fit, if the likelihood has no such rule, or if the
                decoder does not end in a bias for each output or channel.
        """
        x = self._as_data(data[0] if isinstance(data, tuple | list) else data)
        bias = self.likelihood.initial_bias(x.mean(0))
        target = last_bias(self.likelihood.decoder)
        if bias is None or target is None or bias.numel() % target.numel():
            raise ValueError(
                f"{self.likelihood!r} with this decoder cannot start at the data mean: it takes a "
                "likelihood with initial_bias and a decoder whose last layer has a bias for each "
                "output, or for each channel of them."
            )
        # The bias of a convolution is shared by all pixels of its channel.
        target.copy_(bias.reshape(target.numel(), -1).mean(1))
        if getattr(self.prior, "starts_at_data", False):
            self.prior.initialize_from(x)
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
                f"The VAE takes tensors, found {type(x).__name__}. Use torch.as_tensor(x)."
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

    def register_parameters(self, *names: str) -> None:
        """Show the parameters of the named modules to active handlers, as :func:`pyro.module`."""
        for name in names:
            prefix = f"{type(self).__name__.lower()}{self._serial}.{name}"
            register_parameters(getattr(self, name), prefix)

    def _bind_likelihood(
        self, likelihood: Likelihood | None, decoder: Recipe | nn.Module | None, latent_dim: int
    ) -> None:
        decoder = MLP(300, 300) if decoder is None else decoder
        self.likelihood = unbound(likelihood, Likelihood, Bernoulli).bind(
            latent_dim=latent_dim, data_shape=self.data_shape, decoder=decoder
        )

    def _decode(self, *latents: Tensor, mean: bool) -> Tensor:
        """E[x | latents], or a draw from p(x | latents)."""
        distribution = self.likelihood(join(*latents))
        return self.likelihood.mean(distribution) if mean else distribution.sample()

    def _as_data(self, x: Any) -> Tensor:
        """Data as a tensor of the parameters' dtype and device, or an error."""
        x = as_tensor(x, self._like)
        Model.check(self, x, support=False)  # subclasses may check more than x
        return x

    @property
    def _like(self) -> Tensor:
        """A tensor of the parameters' dtype and device."""
        return next(self.parameters())

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        self._serial = next(_serial)

    def __getstate__(self) -> dict[str, Any]:
        # Pyro's parameter store leaves a weak reference in each parameter, which cannot be pickled.
        for parameter in self.parameters():
            vars(parameter).pop("unconstrained", None)
        return self.__dict__.copy()


def as_tensor(data: Any, like: Tensor) -> Any:
    """An array, or a floating-point tensor, with the dtype and device of ``like``.

    Integer arrays become integer tensors. Anything else is returned as it is.

    Raises:
        TypeError: If the data are a NumPy masked array, whose mask a tensor cannot hold.
    """
    if isinstance(data, np.ma.MaskedArray):
        raise TypeError(
            "Found a NumPy masked array, whose mask would be lost. Fill in the missing values, or "
            "give values and mask to pyrovae.observe_part."
        )
    if isinstance(data, np.ndarray):
        data = torch.as_tensor(np.require(data, requirements=["C", "W"]))
    floating = isinstance(data, Tensor) and data.is_floating_point()
    return data.to(like) if floating else data


def join(*tensors: Tensor) -> Tensor:
    """Concatenate along the last dimension; the other dimensions broadcast."""
    if len(tensors) == 1:
        return tensors[0]
    batch = torch.broadcast_shapes(*(t.shape[:-1] for t in tensors))
    return torch.cat([t.expand(*batch, t.shape[-1]) for t in tensors], -1)


def check_shape(data_shape: Sequence[int] | int) -> tuple[int, ...]:
    """The data shape as a tuple; a ValueError unless it is made of positive integers."""
    shape = (data_shape,) if isinstance(data_shape, int) else tuple(data_shape)
    if not shape or not all(map(is_count, shape)):
        raise ValueError(f"data_shape must be one or more positive integers, found {data_shape!r}.")
    return shape


def check_size(name: str, value: Any) -> int:
    """The value; a ValueError unless it is a positive integer."""
    if not is_count(value):
        raise ValueError(f"{name} must be a positive integer, found {value!r}.")
    return value


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
