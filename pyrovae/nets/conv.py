"""Convolutional networks for images of any size, (H, W) or (C, H, W)."""

import math
from abc import abstractmethod

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

__all__ = ["Conv", "Residual"]


class _Image(Recipe):
    """Base of networks of stages that halve an image (encoder) or double it (decoder).

    An odd size is rounded up when it is halved, and the decoder returns to the exact sizes. All
    dimensions before the last two are channels: a decoder with two outputs for each element of
    ``(3, H, W)`` has six.
    """

    def __init__(self, channels: tuple[int, ...], hidden: int, activation: str, init: str):
        self.channels = channels
        (self.hidden,) = check_widths("hidden", hidden)
        self.activation, self.init = activation, init
        initialise(make_activation(activation), init)

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Module:
        for shape in (in_shape, out_shape[1:]):  # a decoder's outputs come before the image
            if len(shape) == 3 and shape[-1] in (1, 3, 4) and min(shape[:2]) > 4:
                raise ValueError(
                    f"{type(self).__name__} needs images (C, H, W), found {shape}, which looks "
                    "like (H, W, C). Move the channels to the front: x.movedim(-1, 1) for a batch "
                    "x."
                )
        if len(in_shape) >= 2:
            return self._finish(self._encoder(in_shape, math.prod(out_shape)))
        if len(out_shape) >= 2:
            return self._finish(self._decoder(math.prod(in_shape), out_shape))
        raise ValueError(
            f"{type(self).__name__} needs images, (H, W) or (C, H, W), on one side, found "
            f"{in_shape} -> {out_shape}. Use MLP."
        )

    def _finish(self, net: nn.Module) -> nn.Module:
        return initialise(net, self.init)

    def _encoder(self, image: tuple[int, ...], features: int) -> nn.Module:
        fan_in = math.prod(image[:-2])
        layers: list[nn.Module] = [nn.Unflatten(1, (1, image[0]))] if len(image) == 2 else []
        if len(image) > 3:
            layers = [nn.Flatten(1, -3)]
        for width in self.channels:
            layers += self._down(fan_in, width)
            fan_in = width
        inner = fan_in * math.prod(self._sizes(image[-2:])[-1])
        layers += [nn.Flatten(), nn.Linear(inner, self.hidden), make_activation(self.activation)]
        return nn.Sequential(*layers, nn.Linear(self.hidden, features))

    def _decoder(self, features: int, image: tuple[int, ...]) -> nn.Module:
        sizes, widths = self._sizes(image[-2:]), [*reversed(self.channels)]
        inner = (widths[0], *sizes[-1])
        layers: list[nn.Module] = [
            nn.Linear(features, self.hidden),
            make_activation(self.activation),
        ]
        layers += [nn.Linear(self.hidden, math.prod(inner)), nn.Unflatten(1, inner)]
        for i, (fan_in, fan_out) in enumerate(
            zip(widths, [*widths[1:], math.prod(image[:-2])], strict=True)
        ):
            layers += self._up(fan_in, fan_out, sizes[-2 - i])
        return nn.Sequential(*layers)

    def _sizes(self, size: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The sizes of the image after 0, 1, ... stages."""
        sizes = [size]
        for _ in self.channels:
            sizes.append(tuple(-(-s // 2) for s in sizes[-1]))
        return sizes

    @abstractmethod
    def _down(self, fan_in: int, fan_out: int) -> list[nn.Module]:
        """Layers of one encoder stage."""

    @abstractmethod
    def _up(self, fan_in: int, fan_out: int, size: tuple[int, ...]) -> list[nn.Module]:
        """Layers of one decoder stage, to an image of ``size``, with no activation at the end."""


class Conv(_Image):
    """Strided convolutions as an encoder; nearest upsampling and convolutions as a decoder.

    It takes images ``(H, W)`` or ``(C, H, W)`` of any size. Each stage halves the image and rounds
    odd sizes up.

    Args:
        channels: Channels of each stage, from the image inwards, one by one or as one sequence.
        more: Further channels: ``Conv(32, 64)`` is ``Conv([32, 64])``.
        hidden: Width of the dense layer between the innermost stage and the features.
        activation: The activation function.
        init: Initial weights: ``"default"`` (torch's own), ``"he"`` or ``"glorot"``.

    Raises:
        ValueError: If a width is not a positive integer, a word is unknown, or, when the network is
            built, neither side is an image, or channels come last, as in ``(28, 28, 3)``.

    Example:
        >>> import torch
        >>> Conv(8, 16).build((3, 9, 7), (20,))(torch.zeros(5, 3, 9, 7)).shape
        torch.Size([5, 20])
        >>> Conv(8, 16).build((20,), (3, 9, 7))(torch.zeros(5, 20)).shape
        torch.Size([5, 3, 9, 7])
    """

    def __init__(
        self,
        channels: Widths = (),
        *more: int,
        hidden: int = 256,
        activation: Activation = "relu",
        init: Initialisation = "default",
    ):
        channels = check_widths("Conv channels", channels, *more, least=1)
        super().__init__(channels, hidden, activation, init)

    def _down(self, fan_in: int, fan_out: int) -> list[nn.Module]:
        return [
            nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1),
            make_activation(self.activation),
        ]

    def _up(self, fan_in: int, fan_out: int, size: tuple[int, ...]) -> list[nn.Module]:
        return [
            make_activation(self.activation),
            nn.Upsample(size=size),
            nn.Conv2d(fan_in, fan_out, 3, padding=1),
        ]


class _Block(nn.Module):
    """x + f(x), where f is two convolutions, each after an activation."""

    def __init__(self, channels: int, activation: str):
        super().__init__()
        self.first, self.last = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.before, self.between = make_activation(activation), make_activation(activation)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.last(self.between(self.first(self.before(inputs))))


class Residual(_Image):
    """As ``Conv``, with residual blocks in each stage that start as the identity.

    The activation comes before each convolution of a block. There is no batch normalisation: the
    posterior and the likelihood of a datum must not depend on the other data of its batch.

    Args:
        channels: Channels of each stage, from the image inwards, one by one or as one sequence.
        more: Further channels.
        blocks: Residual blocks in each stage.
        hidden: Width of the dense layer between the innermost stage and the features.
        activation: The activation function.
        init: Initial weights: ``"he"``, ``"default"`` (torch's own) or ``"glorot"``.

    Raises:
        ValueError: If a width is not a positive integer, a word is unknown, or, when the network is
            built, neither side is an image, or channels come last, as in ``(28, 28, 3)``.

    References:
        Identity Mappings in Deep Residual Networks (He et al., 2016), figure 1b,
        `arXiv:1603.05027 <https://arxiv.org/abs/1603.05027>`_; Fixup Initialization (Zhang et al.,
        2019), for the zero start in place of normalisation,
        `arXiv:1901.09321 <https://arxiv.org/abs/1901.09321>`_.

    Example:
        >>> import torch
        >>> Residual(8, 16, blocks=1).build((3, 9, 7), (20,))(torch.zeros(5, 3, 9, 7)).shape
        torch.Size([5, 20])
    """

    def __init__(
        self,
        channels: Widths = (),
        *more: int,
        blocks: int = 2,
        hidden: int = 256,
        activation: Activation = "silu",
        init: Initialisation = "he",
    ):
        channels = check_widths("Residual channels", channels, *more, least=1)
        super().__init__(channels, hidden, activation, init)
        (self.blocks,) = check_widths("blocks", blocks)

    def _down(self, fan_in: int, fan_out: int) -> list[nn.Module]:
        return [nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1), *self._stage(fan_out)]

    def _up(self, fan_in: int, fan_out: int, size: tuple[int, ...]) -> list[nn.Module]:
        return [
            *self._stage(fan_in),
            nn.Upsample(size=size),
            nn.Conv2d(fan_in, fan_out, 3, padding=1),
        ]

    def _stage(self, channels: int) -> list[nn.Module]:
        return [
            *(_Block(channels, self.activation) for _ in range(self.blocks)),
            make_activation(self.activation),
        ]

    def _finish(self, net: nn.Module) -> nn.Module:
        initialise(net, self.init)
        for layer in net.modules():  # with f = 0 a block is the identity
            if isinstance(layer, _Block):
                nn.init.zeros_(layer.last.weight)
                nn.init.zeros_(layer.last.bias)  # type: ignore[arg-type]
        return net
