"""The contract of a recipe, and what all of them take: activations and initialisations."""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

ACTIVATIONS = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
}
WIDTHS = (int | Sequence[int],)
INITIALISATIONS = ("default", "he", "glorot")


def make_activation(name: str) -> nn.Module:
    """A fresh activation module by its usual lower-case name."""
    if name not in ACTIVATIONS:
        raise ValueError(f"Unknown activation {name!r}. Choose one of {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]()


def initialise(net: nn.Module, how: str) -> nn.Module:
    r"""Draw the weights of linear and convolutional layers anew; biases become zero.

    ``"he"`` is :math:`N(0, 2/\text{fan-in})`, ``"glorot"`` is :math:`U(\pm\sqrt{6/(\text{fan-in} +
    \text{fan-out})})`, ``"default"`` leaves torch's own.

    References:
        Delving Deep into Rectifiers (He et al., 2015), equation 10; Understanding the difficulty of training
        deep feedforward neural networks (Glorot and Bengio, 2010), equation 16.
    """
    if how not in INITIALISATIONS:
        raise ValueError(
            f"Unknown initialisation {how!r}. Choose one of {', '.join(INITIALISATIONS)}."
        )
    for layer in net.modules() if how != "default" else ():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            if how == "he":
                nn.init.normal_(layer.weight, std=math.sqrt(2 / layer.weight[0].numel()))
            else:
                nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return net


def check_widths(
    name: str, first: int | Sequence[int], *more: int, least: int = 0
) -> tuple[int, ...]:
    """Widths, given one by one or as one sequence, as a tuple of positive integers."""
    widths = (*first, *more) if isinstance(first, Sequence) else (first, *more)
    if len(widths) < least or any(
        isinstance(w, bool) or not isinstance(w, int) or w < 1 for w in widths
    ):
        raise ValueError(
            f"{name} must be {'one or more ' * bool(least)}positive integers, found {widths}."
        )
    return widths


class Recipe(ABC):
    """A network that is built once its sizes are known.

    The same recipe serves as encoder, from data to features, and as decoder, from features to data. A new one is
    a subclass with :meth:`build`; if ``__init__`` keeps its arguments under their own names, it prints as declared::

        class Linear(Recipe):
            def build(self, in_shape, out_shape):
                return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(in_shape), math.prod(out_shape)))
    """

    @abstractmethod
    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Module:
        """A module from ``(N, *in_shape)`` to ``(N, *out_shape)``, or to the same flattened."""

    def __repr__(self) -> str:
        arguments = []
        for name, parameter in inspect.signature(type(self).__init__).parameters.items():
            if name == "self":
                continue
            value: Any = getattr(self, name, ())
            if parameter.annotation in WIDTHS:
                arguments.extend(map(repr, value))
            elif parameter.kind is parameter.VAR_POSITIONAL:
                continue
            elif value != parameter.default:
                arguments.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(arguments)})"


def last_bias(net: nn.Module) -> Tensor | None:
    """The bias of the last linear or convolutional layer, if it has one."""
    layers = [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    bias = layers[-1].bias if layers else None
    return bias if isinstance(bias, torch.Tensor) else None
