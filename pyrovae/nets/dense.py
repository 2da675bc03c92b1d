"""Fully connected networks."""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pyrovae.nets.recipe import (
    Activation,
    Initialisation,
    Recipe,
    Widths,
    check_widths,
    initialise,
    make_activation,
)

__all__ = ["MLP", "GatedMLP", "Log1p"]


class MLP(Recipe):
    """Fully connected layers with an activation after each hidden layer.

    Args:
        hidden: Widths of the hidden layers, from input to output, one by one or as one sequence.
            Without hidden layers the network is a linear map.
        more: Further widths: ``MLP(300, 300)`` is ``MLP([300, 300])``.
        activation: The activation function.
        init: Initial weights: ``"default"`` (torch's own), ``"he"`` or ``"glorot"``, as described
            for ``nets.recipe.initialise``.

    Raises:
        ValueError: If a width is not a positive integer, or a word is unknown.

    Example:
        >>> MLP(300, 300).build((28, 28), (80,))(torch.zeros(5, 28, 28)).shape
        torch.Size([5, 80])
    """

    def __init__(
        self,
        hidden: Widths = (),
        *more: int,
        activation: Activation = "relu",
        init: Initialisation = "default",
    ):
        self.hidden = check_widths("Hidden widths", hidden, *more)
        self.activation, self.init = activation, init
        initialise(make_activation(activation), init)

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Module:
        def layer(fan_in: int, fan_out: int) -> list[nn.Module]:
            return [nn.Linear(fan_in, fan_out), make_activation(self.activation)]

        return initialise(_dense(in_shape, out_shape, self.hidden, layer), self.init)


class GatedMLP(Recipe):
    r"""Fully connected layers with gated outputs, :math:`h' = (Ah + a) \odot \sigma(Bh + b)`.

    Args:
        hidden: Widths of the hidden layers, from input to output, one by one or as one sequence.
        more: Further widths.
        init: Initial weights: ``"he"`` (as in the paper), ``"default"`` (torch's own) or
            ``"glorot"``, whose fan-out counts value and gate.

    Raises:
        ValueError: If a width is not a positive integer, or the initialisation is unknown.

    References:
        VAE with a VampPrior (Tomczak and Welling, 2018), section 5.1,
        `arXiv:1705.07120 <https://arxiv.org/abs/1705.07120>`_; Language Modeling with Gated
        Convolutional Networks (Dauphin et al., 2017), equation 1,
        `arXiv:1612.08083 <https://arxiv.org/abs/1612.08083>`_.

    Example:
        >>> GatedMLP(300, 300).build((40,), (28, 28))(torch.zeros(5, 40)).shape
        torch.Size([5, 784])
    """

    def __init__(self, hidden: Widths = (), *more: int, init: Initialisation = "he"):
        self.hidden = check_widths("Hidden widths", hidden, *more)
        self.init = init
        initialise(nn.Identity(), init)

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Module:
        def layer(fan_in: int, fan_out: int) -> list[nn.Module]:
            # Ah + a and Bh + b by one product.
            return [nn.Linear(fan_in, 2 * fan_out), nn.GLU()]

        return initialise(_dense(in_shape, out_shape, self.hidden, layer), self.init)


class Log1p(Recipe):
    """Another recipe's network applied to log(1 + x).

    It suits as an encoder of counts, which range over orders of magnitude.

    Args:
        net: The recipe, such as ``nets.MLP(128)``.

    Raises:
        TypeError: If ``net`` is not a recipe.

    Example:
        >>> Log1p(MLP(128)).build((50,), (20,))(torch.full((5, 50), 1e6)).shape
        torch.Size([5, 20])
    """

    def __init__(self, net: Recipe):
        if not isinstance(net, Recipe):
            raise TypeError(
                f"Log1p takes a recipe such as nets.MLP(128), found {type(net).__name__}."
            )
        self.net = net

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Module:
        return nn.Sequential(_Log1pInput(), self.net.build(in_shape, out_shape))


def _dense(
    in_shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    hidden: tuple[int, ...],
    layer: Callable[[int, int], list[nn.Module]],
) -> nn.Sequential:
    """Hidden layers by ``layer(fan_in, fan_out)``, and a linear one to the flattened output."""
    widths = [math.prod(in_shape), *hidden]
    layers: list[nn.Module] = [] if len(in_shape) == 1 else [nn.Flatten()]
    for fan_in, fan_out in itertools.pairwise(widths):
        layers += layer(fan_in, fan_out)
    return nn.Sequential(*layers, nn.Linear(widths[-1], math.prod(out_shape)))


class _Log1pInput(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return torch.log1p(inputs)
