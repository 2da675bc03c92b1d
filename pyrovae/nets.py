"""Network recipes: what to build, before the sizes are known. The VAE gives the sizes."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

__all__ = ["Recipe", "MLP", "Conv"]

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU, "gelu": nn.GELU, "elu": nn.ELU, "softplus": nn.Softplus}


def activation(name: str) -> nn.Module:
    """A fresh activation module by its usual lower-case name."""
    if name not in ACTIVATIONS:
        raise ValueError(f"Unknown activation {name!r}. Choose one of {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]()


class Recipe(ABC):
    """A network that is built once its sizes are known.

    The same recipe serves as encoder, from data to features, and as decoder, from features to data; a new one
    is a subclass with :meth:`build`.
    """

    @abstractmethod
    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Module:
        """A module from ``(N, *in_shape)`` to ``(N, *out_shape)``, or to the same flattened."""


class MLP(Recipe):
    """Fully connected layers with an activation between them.

    Weights keep torch's own initialisation.

    Args:
        hidden: Widths of the hidden layers, from input to output; none makes a linear map.
        activation: One of relu, tanh, silu, gelu, elu, softplus.
    """

    def __init__(self, *hidden: int, activation: str = "relu"):
        if any(isinstance(h, bool) or not isinstance(h, int) or h < 1 for h in hidden):
            raise ValueError(f"Hidden widths must be positive integers, found {hidden}.")
        self.hidden, self.activation = hidden, activation
        _ = globals()["activation"](activation)

    def __repr__(self) -> str:
        arguments = [*map(str, self.hidden), *([f"activation={self.activation!r}"] * (self.activation != "relu"))]
        return f"MLP({', '.join(arguments)})"

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Module:
        widths = [math.prod(in_shape), *self.hidden]
        layers: list[nn.Module] = [] if len(in_shape) == 1 else [nn.Flatten()]
        for fan_in, fan_out in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(fan_in, fan_out), activation(self.activation)]
        layers.append(nn.Linear(widths[-1], math.prod(out_shape)))
        return nn.Sequential(*layers)


class Conv(Recipe):
    """Strided convolutions down as an encoder; nearest upsampling and convolutions up as a decoder.

    For images ``(H, W)`` or ``(C, H, W)`` of any size; each stage halves it, rounding up.

    Args:
        channels: Channels of each stage, from the image inwards.
        hidden: Width of the dense layer between the innermost stage and the features.
        activation: As in :class:`MLP`.
    """

    def __init__(self, *channels: int, hidden: int = 256, activation: str = "relu"):
        if not channels or any(isinstance(c, bool) or not isinstance(c, int) or c < 1 for c in channels):
            raise ValueError(f"Conv needs at least one positive integer of channels, found {channels}.")
        if hidden < 1:
            raise ValueError(f"hidden must be at least 1, found {hidden}.")
        self.channels, self.hidden, self.activation = channels, hidden, activation
        _ = globals()["activation"](activation)

    def __repr__(self) -> str:
        arguments = [*map(str, self.channels), f"hidden={self.hidden}"]
        return f"Conv({', '.join(arguments + [f'activation={self.activation!r}'] * (self.activation != 'relu'))})"

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Module:
        if len(in_shape) >= 2:
            return self._down(in_shape, math.prod(out_shape))
        if len(out_shape) >= 2:
            return self._up(math.prod(in_shape), out_shape)
        raise ValueError(
            f"Conv needs images, (H, W) or (C, H, W), on one side, found {in_shape} -> {out_shape}. Use MLP."
        )

    def _down(self, image: tuple[int, ...], features: int) -> nn.Module:
        channels, size = math.prod(image[:-2]), image[-2:]
        layers: list[nn.Module] = [nn.Unflatten(1, (1, image[0]))] if len(image) == 2 else []
        if len(image) > 3:
            layers = [nn.Flatten(1, -3)]
        for width in self.channels:
            layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), activation(self.activation)]
            channels, size = width, tuple(-(-s // 2) for s in size)
        flat = channels * math.prod(size)
        layers += [nn.Flatten(), nn.Linear(flat, self.hidden), activation(self.activation)]
        return nn.Sequential(*layers, nn.Linear(self.hidden, features))

    def _up(self, features: int, image: tuple[int, ...]) -> nn.Module:
        sizes = [image[-2:]]
        for _ in self.channels:
            sizes.append(tuple(-(-s // 2) for s in sizes[-1]))
        widths = [*reversed(self.channels)]
        inner = (widths[0], *sizes[-1])
        layers: list[nn.Module] = [nn.Linear(features, self.hidden), activation(self.activation)]
        layers += [nn.Linear(self.hidden, math.prod(inner)), activation(self.activation), nn.Unflatten(1, inner)]
        for i, width in enumerate(widths):
            out = widths[i + 1] if i + 1 < len(widths) else math.prod(image[:-2])
            layers += [nn.Upsample(size=sizes[-2 - i]), nn.Conv2d(width, out, 3, padding=1)]
            if i + 1 < len(widths):
                layers.append(activation(self.activation))
        return nn.Sequential(*layers)


def last_bias(net: nn.Module) -> Tensor | None:
    """The bias of the last linear or convolutional layer, if it has one."""
    layers = [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    bias = layers[-1].bias if layers else None
    return bias if isinstance(bias, torch.Tensor) else None
