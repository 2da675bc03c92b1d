"""Convolutional nets for images of any size, (H, W) or (C, H, W)."""

import math
from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from pyrovae.nets.recipe import Recipe, check_widths, initialise, make_activation


class _Image(Recipe):
    """Stages that halve an image, rounding up, as an encoder; and double it, to the exact sizes, as a decoder.

    All dimensions before the last two are channels: a decoder for two outputs an element of ``(3, H, W)`` has six.
    """

    channels: tuple[int, ...]
    hidden: int
    activation: str
    init: str

    def _take(self, channels: tuple[int, ...], hidden: int, activation: str, init: str) -> None:
        self.channels = channels
        (self.hidden,) = check_widths("hidden", hidden)
        self.activation, self.init = activation, init
        initialise(make_activation(activation), init)

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Module:
        if len(in_shape) >= 2:
            return self._finish(self._encoder(in_shape, math.prod(out_shape)))
        if len(out_shape) >= 2:
            return self._finish(self._decoder(math.prod(in_shape), out_shape))
        raise ValueError(
            f"{type(self).__name__} needs images, (H, W) or (C, H, W), on one side, found {in_shape} -> {out_shape}. "
            "Use MLP."
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
        """The image's size after 0, 1, ... stages."""
        sizes = [size]
        for _ in self.channels:
            sizes.append(tuple(-(-s // 2) for s in sizes[-1]))
        return sizes

    @abstractmethod
    def _down(self, fan_in: int, fan_out: int) -> list[nn.Module]:
        """Layers of one encoder stage."""

    @abstractmethod
    def _up(self, fan_in: int, fan_out: int, size: tuple[int, ...]) -> list[nn.Module]:
        """Layers of one decoder stage, to an image of ``size``; they end without an activation."""


class Conv(_Image):
    """Strided convolutions down as an encoder; nearest upsampling and convolutions up as a decoder.

    For images ``(H, W)`` or ``(C, H, W)`` of any size; each stage halves it, rounding up.

    Args:
        channels: Channels of each stage, from the image inwards.
        more: Further channels.
        hidden: Width of the dense layer between the innermost stage and the features.
        activation: As in :class:`MLP`.
        init: ``"default"`` (torch's own), ``"he"`` or ``"glorot"``.

    Raises:
        ValueError: If a width is not a positive integer, a word is unknown, or neither side is an image.
    """

    def __init__(
        self,
        channels: int | Sequence[int] = (),
        *more: int,
        hidden: int = 256,
        activation: str = "relu",
        init: str = "default",
    ):
        self._take(
            check_widths(f"{type(self).__name__} channels", channels, *more, least=1),
            hidden,
            activation,
            init,
        )

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
    """x + f(x) with two convolutions, each after an activation; f starts at zero."""

    def __init__(self, channels: int, activation: str):
        super().__init__()
        self.first, self.last = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.before, self.between = make_activation(activation), make_activation(activation)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.last(self.between(self.first(self.before(inputs))))


class Residual(_Image):
    """As :class:`Conv`, with pre-activation residual blocks in each stage, which start as the identity.

    There is no batch normalisation: what a datum's posterior and likelihood are must not depend on the others.

    Args:
        channels: Channels of each stage, from the image inwards.
        more: Further channels.
        blocks: Residual blocks in each stage.
        hidden: Width of the dense layer between the innermost stage and the features.
        activation: As in :class:`MLP`.
        init: ``"he"``, ``"default"`` (torch's own) or ``"glorot"``.

    Raises:
        ValueError: If a width is not a positive integer, a word is unknown, or neither side is an image.

    References:
        Identity Mappings in Deep Residual Networks (He et al., 2016), figure 1b; Fixup Initialization (Zhang et
        al., 2019), for the zero start in place of normalisation.
    """

    def __init__(
        self,
        channels: int | Sequence[int] = (),
        *more: int,
        blocks: int = 2,
        hidden: int = 256,
        activation: str = "silu",
        init: str = "he",
    ):
        self._take(
            check_widths(f"{type(self).__name__} channels", channels, *more, least=1),
            hidden,
            activation,
            init,
        )
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
        for layer in net.modules():
            if isinstance(layer, _Block):
                nn.init.zeros_(layer.last.weight)
                nn.init.zeros_(layer.last.bias)  # type: ignore[arg-type]
        return net
