"""What every declared model and guide have in common: parts, checks, copies, and sugar."""

import copy
import itertools
import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from pyrovae import posteriors, priors
from pyrovae.nets import Recipe, last_bias
from pyrovae.posteriors import Posterior
from pyrovae.priors import Prior
from pyrovae.programs import register_parameters

__all__ = ["Pair", "check_shape", "check_size", "check_spaces", "declaration", "own"]

_serial = itertools.count()


class Pair(nn.Module):
    """Base of modules that make two Pyro programs, ``model`` and ``guide``, of their parts.

    A copy or an unpickled pair shares no parameter with its original, whatever Pyro's global store holds.
    """

    model: Any
    guide: Any
    likelihood: Any
    prior: Any
    data_shape: tuple[int, ...]

    def __init__(self) -> None:
        super().__init__()
        self._serial = next(_serial)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        self._serial = next(_serial)

    def __getstate__(self) -> dict[str, Any]:
        for (
            parameter
        ) in self.parameters():  # Pyro's store leaves a weak reference, which no pickle can hold
            vars(parameter).pop("unconstrained", None)
        return self.__dict__.copy()

    def register_parameters(self, *names: str) -> None:
        """Tell listening handlers of the parameters of the named parts."""
        for name in names:
            register_parameters(
                getattr(self, name), f"{type(self).__name__.lower()}{self._serial}.{name}"
            )

    def fit(self, train: Any, **kwargs: Any) -> Any:
        """Short for :func:`pyrovae.fit` with this model and guide."""
        from pyrovae.training.fit import fit

        return fit(self.model, self.guide, train, **kwargs)

    def log_marginal(self, data: Any, **kwargs: Any) -> Any:
        """Short for :func:`pyrovae.log_marginal` with this model and guide."""
        from pyrovae.evidence import log_marginal

        return log_marginal(self.model, self.guide, data, **kwargs)

    @torch.no_grad()
    def initialize_from(self, data: Tensor | tuple[Tensor, ...]) -> Self:
        """Start the decoder's output bias where the likelihood's mean is the mean of ``data``.

        A prior that asks for it, as ``priors.Vamp(start="data")``, is started from the data, too.

        Args:
            data: Training data ``(N, *data_shape)``, or a tuple that begins with them.

        References:
            Importance Weighted Autoencoders (Burda et al., 2016), section 5.

        Raises:
            ValueError: If the likelihood has no such rule, or the decoder does not end in a bias for each output.
        """
        x = (data[0] if isinstance(data, tuple) else data).to(self._like)
        bias = self.likelihood.initial_bias(x.mean(0))
        target = last_bias(self.likelihood.decoder)
        if bias is None or target is None or bias.numel() % target.numel():
            raise ValueError(
                f"{self.likelihood!r} with this decoder cannot start at the data mean: it takes a likelihood with "
                "initial_bias and a decoder whose last layer has a bias for each output, or for each channel of them."
            )
        target.copy_(
            bias.reshape(target.numel(), -1).mean(1)
        )  # a channel's bias serves all its pixels
        if getattr(self.prior, "starts_at_data", False):
            self.prior.initialize_from(x)
        return self

    @property
    def _like(self) -> Tensor:
        """A tensor of the pair's dtype and device."""
        return next(self.parameters())


def check_data(x: Any, shape: tuple[int, ...]) -> None:
    """Raise unless x is a floating tensor of shape ``(B, *shape)``."""
    if not isinstance(x, Tensor):
        raise TypeError(f"The VAE takes tensors, found {type(x).__name__}. Use torch.as_tensor(x).")
    if x.dim() != 1 + len(shape) or tuple(x.shape[1:]) != shape:
        raise ValueError(
            f"Data must have shape (B, {', '.join(map(str, shape))}), found {tuple(x.shape)}."
        )
    if not x.is_floating_point():
        raise TypeError(f"Data must be floating point, found {x.dtype}. Use x.float().")


def check_shape(data_shape: Sequence[int] | int) -> tuple[int, ...]:
    """The data shape as a tuple, or a ValueError."""
    shape = (data_shape,) if isinstance(data_shape, int) else tuple(data_shape)
    if (
        not shape
        or any(isinstance(s, bool) or not isinstance(s, int) or s < 1 for s in shape)
        or not math.prod(shape)
    ):
        raise ValueError(f"data_shape must be one or more positive integers, found {data_shape!r}.")
    return shape


def check_size(name: str, value: Any) -> int:
    """A positive integer, or a ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer, found {value!r}.")
    return value


def own(part: Any, kind: type, default: type) -> Any:
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


def declaration(pair: Pair, *rows: dict[str, Any]) -> str:
    """How a pair was declared, a line for each row of arguments; strings stand for themselves."""
    lines = (
        ", ".join(f"{k}={v if isinstance(v, str) else repr(v)}" for k, v in row.items())
        for row in rows
    )
    return f"{type(pair).__name__}(\n" + "".join(f"    {line},\n" for line in lines if line) + ")"


def describe(net: Recipe | nn.Module) -> str:
    """How a network was declared."""
    return repr(net) if isinstance(net, Recipe) else type(net).__name__


def check_spaces(prior: Prior | Posterior, posterior: Posterior) -> None:
    """Raise a ValueError that names the alternatives unless prior and posterior live on the same space."""
    if prior.space == posterior.space:
        left, right = (getattr(part, "block_shape", None) for part in (prior, posterior))
        if left is not None and right is not None and left != right:
            raise ValueError(
                f"{prior!r} has {left[0]} latents of {left[1]} categories, {posterior!r} has {right[0]} of "
                f"{right[1]}. Give both the same num_categories."
            )
        return
    fitting_priors = [
        name for name in priors.__all__ if getattr(priors, name).space == posterior.space
    ]
    fitting = [
        name for name in posteriors.__all__ if getattr(posteriors, name).space == prior.space
    ]
    raise ValueError(
        f"{prior!r} lives on the space {prior.space!r}, but {posterior!r} on {posterior.space!r}. "
        f"With this prior take one of posteriors: {_names(fitting, 'Posterior')}; with this posterior one of "
        f"priors: {_names([*fitting_priors, 'Vamp'], 'Prior')}."
    )


def _names(found: list[str], base: str) -> str:
    return ", ".join(name for name in found if name != base) or f"a {base} of your own"
