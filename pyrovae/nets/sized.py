"""A network as a function between two event shapes, whatever its batch dimensions."""

import math

import torch
from torch import Tensor, nn

from pyrovae.nets.recipe import Recipe


class Sized(nn.Module):
    """A network seen as a function of any number of leading batch dimensions, with checked sizes.

    Args:
        net: A recipe, built here for the two shapes, or a module, checked against them with two zero inputs.
        in_shape, out_shape: Event shapes; the module may also return them flattened.
        role: What to call it in errors.
    """

    def __init__(
        self,
        net: Recipe | nn.Module,
        in_shape: tuple[int, ...],
        out_shape: tuple[int, ...],
        role: str,
    ):
        super().__init__()
        if isinstance(net, Recipe):
            net = net.build(in_shape, out_shape)
        elif not isinstance(net, nn.Module):
            raise TypeError(
                f"{role} must be a net recipe such as nets.MLP(300, 300) or an nn.Module, found {type(net).__name__}."
            )
        else:
            _check_sizes(net, in_shape, out_shape, role)
        self.net = net
        self.in_shape, self.out_shape = in_shape, out_shape

    def forward(self, inputs: Tensor) -> Tensor:
        batch = inputs.shape[: inputs.dim() - len(self.in_shape)]
        outputs = self.net(inputs.reshape(-1, *self.in_shape))
        return outputs.reshape(*batch, *self.out_shape)


def _check_sizes(
    net: nn.Module, in_shape: tuple[int, ...], out_shape: tuple[int, ...], role: str
) -> None:
    modes = [(module, module.training) for module in net.modules()]
    like = next(net.parameters(), torch.zeros(()))
    probe = torch.zeros(
        2, *in_shape, dtype=like.dtype if like.is_floating_point() else None, device=like.device
    )
    try:
        net.eval()
        with torch.no_grad():
            found = net(probe)
    except Exception as error:
        raise ValueError(
            f"{role} failed on a zero input of shape (2, {', '.join(map(str, in_shape))}): {error}. "
            f"It must map (N, *{in_shape}) to (N, *{out_shape}), flattened or not."
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    if (
        not isinstance(found, Tensor)
        or found.shape[0] != 2
        or found[0].numel() != math.prod(out_shape)
    ):
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"{role} gave {shape} for an input of shape {tuple(probe.shape)}, expected (2, {math.prod(out_shape)}) "
            f"or (2, *{out_shape}). Change its last layer."
        )
