"""Fully connected nets."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyrovae.nets.recipe import Recipe, check_widths, initialise, make_activation


def _dense(
    in_shape: tuple[int, ...], out_shape: tuple[int, ...], hidden: tuple[int, ...], layer
) -> nn.Sequential:
    """Hidden layers by ``layer(fan_in, fan_out)``, and a linear one to the flattened output."""
    widths = [math.prod(in_shape), *hidden]
    layers: list[nn.Module] = [] if len(in_shape) == 1 else [nn.Flatten()]
    for fan_in, fan_out in itertools.pairwise(widths):
        layers += layer(fan_in, fan_out)
    return nn.Sequential(*layers, nn.Linear(widths[-1], math.prod(out_shape)))


class MLP(Recipe):
    """Fully connected layers with an activation between them.

    Args:
        hidden: Widths of the hidden layers, from input to output; none makes a linear map.
        more: Further widths: ``MLP(300, 300)`` is ``MLP([300, 300])``.
        activation: One of relu, tanh, silu, gelu, elu, softplus.
        init: ``"default"`` (torch's own), ``"he"`` or ``"glorot"``; see
            :func:`~pyrovae.nets.recipe.initialise`.

    Raises:
        ValueError: If a width is not a positive integer, or a word is unknown.
    """

    def __init__(
        self,
        hidden: int | Sequence[int] = (),
        *more: int,
        activation: str = "relu",
        init: str = "default",
    ):
        self.hidden = check_widths("Hidden widths", hidden, *more)
        self.activation, self.init = activation, init
        initialise(make_activation(activation), init)

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Module:
        def layer(fan_in: int, fan_out: int) -> list[nn.Module]:
            return [nn.Linear(fan_in, fan_out), make_activation(self.activation)]

        return initialise(_dense(in_shape, out_shape, self.hidden, layer), self.init)


class _Gated(nn.Module):
    def __init__(self, fan_in: int, fan_out: int):
        super().__init__()
        self.value, self.gate = nn.Linear(fan_in, fan_out), nn.Linear(fan_in, fan_out)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.value(inputs) * torch.sigmoid(self.gate(inputs))


class GatedMLP(Recipe):
    r"""Fully connected layers whose outputs are gated, :math:`h' = (Ah + a) \odot \sigma(Bh + b)`.

    Args:
        hidden: Widths of the hidden layers, from input to output.
        more: Further widths.
        init: ``"he"`` (the paper's), ``"default"`` (torch's own) or ``"glorot"``.

    Raises:
        ValueError: If a width is not a positive integer, or the initialisation is unknown.

    References:
        VAE with a VampPrior (Tomczak and Welling, 2018), section 5.1; Language Modeling with Gated
        Convolutional Networks (Dauphin et al., 2017), equation 1.
    """

    def __init__(self, hidden: int | Sequence[int] = (), *more: int, init: str = "he"):
        self.hidden = check_widths("Hidden widths", hidden, *more)
        self.init = init
        initialise(nn.Identity(), init)

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Module:
        net = _dense(
            in_shape, out_shape, self.hidden, lambda fan_in, fan_out: [_Gated(fan_in, fan_out)]
        )
        return initialise(net, self.init)


class _Log1pInput(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return torch.log1p(inputs)


class Log1p(Recipe):
    """Another recipe on log(1 + x) of its input: an encoder for counts, which range over orders of magnitude.

    Args:
        net: The recipe, such as ``nets.MLP(128)``.

    Raises:
        TypeError: If ``net`` is no recipe.
    """

    def __init__(self, net: Recipe):
        if not isinstance(net, Recipe):
            raise TypeError(
                f"Log1p takes a recipe such as nets.MLP(128), found {type(net).__name__}."
            )
        self.net = net

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Module:
        return nn.Sequential(_Log1pInput(), self.net.build(in_shape, out_shape))
