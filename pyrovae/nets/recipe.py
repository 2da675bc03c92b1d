"""The contract of a network recipe; widths, activations and initialisations."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from torch import Tensor, nn

from pyrovae.declare import Declared, is_count, plain

Activation = Literal["relu", "tanh", "silu", "gelu", "elu", "softplus"]
Initialisation = Literal["default", "he", "glorot"]
Widths = int | Sequence[int]

ACTIVATIONS = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
}
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers with a weight and a bias."""
INITIALISATIONS: tuple[str, ...] = get_args(Initialisation)


class Recipe(Declared, ABC):
    """A network that is built once its sizes are known.

    The same recipe serves as encoder, from data to features, and as decoder, from features to data.
    A new recipe is a subclass with the method :meth:`build`:

        >>> class Linear(Recipe):
        ...     def build(self, in_shape, out_shape):
        ...         fan_in, fan_out = math.prod(in_shape), math.prod(out_shape)
        ...         return nn.Sequential(nn.Flatten(), nn.Linear(fan_in, fan_out))
        >>> Linear().build((2, 3), (4,))
        Sequential(
          (0): Flatten(start_dim=1, end_dim=-1)
          (1): Linear(in_features=6, out_features=4, bias=True)
        )
    """

    @abstractmethod
    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Module:
        """A module from ``(N, *in_shape)`` to ``(N, *out_shape)``, flattened or not."""


def make_activation(name: str) -> nn.Module:
    """A new activation module by its usual lower-case name; a ValueError if there is none."""
    if name not in ACTIVATIONS:
        raise ValueError(f"Unknown activation {name!r}. Choose one of {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]()


def initialise(net: nn.Module, how: str) -> nn.Module:
    r"""Draw the weights of all linear and convolutional layers anew, and set their biases to zero.

    ``"he"`` draws from :math:`N(0, 2/\text{fan-in})`, ``"glorot"`` from
    :math:`U(\pm\sqrt{6/(\text{fan-in} + \text{fan-out})})`. ``"default"`` changes nothing: torch's
    own initial values stay.

    Raises:
        ValueError: If ``how`` is another word.

    References:
        Delving Deep into Rectifiers (He et al., 2015), equation 10,
        `arXiv:1502.01852 <https://arxiv.org/abs/1502.01852>`_; Understanding the difficulty of
        training deep feedforward neural networks (Glorot and Bengio, 2010), equation 16.
    """
    if how not in INITIALISATIONS:
        raise ValueError(
            f"Unknown initialisation {how!r}. Choose one of {', '.join(INITIALISATIONS)}."
        )
    for layer in net.modules() if how != "default" else ():
        if isinstance(layer, LAYERS):
            if how == "he":
                nn.init.normal_(layer.weight, std=math.sqrt(2 / layer.weight[0].numel()))
            else:
                nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return net


def check_widths(name: str, first: Widths, *more: int, least: int = 0) -> tuple[int, ...]:
    """Widths, given one by one or as one sequence, as a tuple of positive integers.

    Raises:
        ValueError: If one is not a positive integer, or there are fewer than ``least``.
    """
    several = isinstance(first, Sequence | np.ndarray)
    widths = plain((*first, *more) if several else (first, *more))  # type: ignore[misc]
    if len(widths) < least or not all(map(is_count, widths)):
        raise ValueError(
            f"{name} must be {'one or more ' * bool(least)}positive integers, found {widths}."
        )
    return widths


def last_bias(net: nn.Module) -> Tensor | None:
    """The bias of the last linear or convolutional layer, or None if that layer has no bias.

    Example:
        >>> last_bias(nn.Sequential(nn.Linear(2, 3), nn.ReLU())).shape
        torch.Size([3])
    """
    layers = [m for m in net.modules() if isinstance(m, LAYERS)]
    bias = layers[-1].bias if layers else None
    return bias if isinstance(bias, Tensor) else None


def as_last_layer(net: nn.Module, outputs: Tensor) -> Tensor:
    """Outputs of a network for one datum, in the order of dimensions in which its last layer made
    them.
    """
    for module in net.modules():
        outputs = module.undo(outputs) if hasattr(module, "undo") else outputs  # type: ignore
    return outputs
