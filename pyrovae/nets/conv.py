"""Convolutional networks for signals, images and volumes of any size."""

import math
from abc import abstractmethod
from typing import Literal

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

_CONVOLUTIONS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_AXES = {1: "L", 2: "HW", 3: "DHW"}


class _Image(Recipe):
    """Base of networks of stages that halve an image (encoder) or double it (decoder).

    An image has one, two or three dimensions of space. An odd size is rounded up when it is halved,
    and the decoder returns to the exact sizes. All dimensions before those of space are channels: a
    decoder with two outputs for each element of ``(3, H, W)`` has six.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        hidden: int,
        activation: str,
        init: str,
        dims: int,
        channels_last: bool,
    ):
        self.channels = channels
        (self.hidden,) = check_widths("hidden", hidden)
        self.activation, self.init = activation, init
        if dims not in _CONVOLUTIONS:
            raise ValueError(f"dims must be 1, 2 or 3, found {dims!r}.")
        self.dims, self.channels_last = dims, channels_last
        self._convolution = _CONVOLUTIONS[dims]
        initialise(make_activation(activation), init)

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Module:
        for shape in (in_shape, out_shape[1:]):  # a decoder's outputs come before the image
            last = self.dims == 2 and len(shape) == 3 and shape[-1] in (1, 3, 4)
            if last and min(shape[:2]) > 4 and not self.channels_last:
                raise ValueError(
                    f"{type(self).__name__} needs images (C, H, W), found {shape}, which looks "
                    "like (H, W, C). Give channels_last=True, or move the channels to the front: "
                    "x.movedim(-1, 1) for a batch x."
                )
        rank = self.dims + self.channels_last
        # A decoder has several outputs, even if it is one for each element.
        if len(in_shape) == 1 and len(out_shape) > 1 and len(out_shape) >= rank:
            return self._finish(self._decoder(in_shape[0], out_shape))
        if len(in_shape) >= rank:
            return self._finish(self._encoder(in_shape, math.prod(out_shape)))
        axes = ", ".join(_AXES[self.dims])
        with_channels = f"({axes}, C)" if self.channels_last else f"({axes}) or (C, {axes})"
        raise ValueError(
            f"{type(self).__name__} needs images, {with_channels}, on one side, found "
            f"{in_shape} -> {out_shape}. Use MLP, or dims=1 for signals and dims=3 for volumes."
        )

    def _finish(self, net: nn.Module) -> nn.Module:
        return initialise(net, self.init)

    def _encoder(self, image: tuple[int, ...], features: int) -> nn.Module:
        layers: list[nn.Module] = []
        if self.channels_last:
            layers = [_Move(-1, -1 - self.dims)]
            image = (*image[: -1 - self.dims], image[-1], *image[-1 - self.dims : -1])
        space = image[-self.dims :]
        fan_in = math.prod(image[: -self.dims])
        if len(image) == self.dims:
            layers += [nn.Unflatten(1, (1, image[0]))]
        if len(image) > self.dims + 1:
            layers += [nn.Flatten(1, -1 - self.dims)]
        for width in self.channels:
            layers += self._down(fan_in, width)
            fan_in = width
        inner = fan_in * math.prod(self._sizes(space)[-1])
        layers += [nn.Flatten(), nn.Linear(inner, self.hidden), make_activation(self.activation)]
        return nn.Sequential(*layers, nn.Linear(self.hidden, features))

    def _decoder(self, features: int, image: tuple[int, ...]) -> nn.Module:
        last = self.channels_last
        space = image[-1 - self.dims : -1] if last else image[-self.dims :]
        outputs = image[: -1 - self.dims] + image[-1:] if last else image[: -self.dims]
        sizes, widths = self._sizes(space), [*reversed(self.channels)]
        inner = (widths[0], *sizes[-1])
        layers: list[nn.Module] = [
            nn.Linear(features, self.hidden),
            make_activation(self.activation),
        ]
        layers += [nn.Linear(self.hidden, math.prod(inner)), nn.Unflatten(1, inner)]
        for i, (fan_in, fan_out) in enumerate(
            zip(widths, [*widths[1:], math.prod(outputs)], strict=True)
        ):
            layers += self._up(fan_in, fan_out, sizes[-2 - i])
        if last:
            layers += [nn.Unflatten(1, outputs), _Move(-1 - self.dims, -1)]
        return nn.Sequential(*layers)

    def _sizes(self, size: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The sizes of the image after 0, 1, ... stages."""
        sizes = [size]
        for _ in self.channels:
            sizes.append(tuple(-(-s // 2) for s in sizes[-1]))
        return sizes

    def _down(self, fan_in: int, fan_out: int) -> list[nn.Module]:
        """Layers of one encoder stage."""
        halved = self._convolution(fan_in, fan_out, 3, stride=2, padding=1)
        return [halved, *self._stage(fan_out)]

    def _up(self, fan_in: int, fan_out: int, size: tuple[int, ...]) -> list[nn.Module]:
        """Layers of one decoder stage, to an image of ``size``, with no activation at the end."""
        return [
            *self._stage(fan_in),
            nn.Upsample(size=size),
            self._convolution(fan_in, fan_out, 3, padding=1),
        ]

    @abstractmethod
    def _stage(self, channels: int) -> list[nn.Module]:
        """Layers of a stage that keep the size of the image."""


class _Move(nn.Module):
    """Move one dimension, counted from the end."""

    def __init__(self, source: int, destination: int):
        super().__init__()
        self.source, self.destination = source, destination

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.movedim(self.source, self.destination)

    def undo(self, outputs: Tensor) -> Tensor:
        return outputs.movedim(self.destination, self.source)


class Conv(_Image):
    """Strided convolutions as an encoder; nearest upsampling and convolutions as a decoder.

    It takes images ``(H, W)`` or ``(C, H, W)`` of any size; with ``dims=1`` signals and sequences
    ``(L,)`` or ``(C, L)``, and with ``dims=3`` volumes ``(D, H, W)`` or ``(C, D, H, W)``. Each
    stage halves the image and rounds odd sizes up.

    Args:
        channels: Channels of each stage, from the image inwards, one by one or as one sequence.
        more: Further channels: ``Conv(32, 64)`` is ``Conv([32, 64])``.
        hidden: Width of the dense layer between the innermost stage and the features.
        activation: The activation function.
        init: Initial weights: ``"default"`` (torch's own), ``"he"`` or ``"glorot"``.
        dims: Dimensions of space: 1, 2 or 3.
        channels_last: Whether the channels are the last dimension of the data, as in (H, W, C).

    Raises:
        ValueError: If a width is not a positive integer, a word is unknown, or, when the network is
            built, neither side is an image, or channels seem to come last, as in ``(28, 28, 3)``,
            without ``channels_last``.

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
        dims: Literal[1, 2, 3] = 2,
        channels_last: bool = False,
    ):
        channels = check_widths("Conv channels", channels, *more, least=1)
        super().__init__(channels, hidden, activation, init, dims, channels_last)

    def _stage(self, channels: int) -> list[nn.Module]:
        return [make_activation(self.activation)]


class _Block(nn.Module):
    """x + f(x), where f is two convolutions, each after an activation."""

    def __init__(self, convolution: type[nn.Module], channels: int, activation: str):
        super().__init__()
        self.first, self.last = (convolution(channels, channels, 3, padding=1) for _ in range(2))
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
        dims: Dimensions of space: 1, 2 or 3.
        channels_last: Whether the channels are the last dimension of the data, as in (H, W, C).

    Raises:
        ValueError: If a width is not a positive integer, a word is unknown, or, when the network is
            built, neither side is an image, or channels seem to come last, as in ``(28, 28, 3)``,
            without ``channels_last``.

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
        dims: Literal[1, 2, 3] = 2,
        channels_last: bool = False,
    ):
        channels = check_widths("Residual channels", channels, *more, least=1)
        super().__init__(channels, hidden, activation, init, dims, channels_last)
        (self.blocks,) = check_widths("blocks", blocks)

    def _stage(self, channels: int) -> list[nn.Module]:
        return [
            *(_Block(self._convolution, channels, self.activation) for _ in range(self.blocks)),
            make_activation(self.activation),
        ]

    def _finish(self, net: nn.Module) -> nn.Module:
        initialise(net, self.init)
        for layer in net.modules():  # with f = 0 a block is the identity
            if isinstance(layer, _Block):
                nn.init.zeros_(layer.last.weight)  # type: ignore[arg-type]
                nn.init.zeros_(layer.last.bias)  # type: ignore[arg-type]
        return net
