"""Networks with checked sizes."""

import math

import torch
from torch import Tensor, nn

from pyrovae.nets.recipe import Recipe
from pyrovae.programs import evaluation_mode


class Sized(nn.Module):
    """A network as a function of any number of leading batch dimensions, with checked sizes.

    Args:
        net: A recipe, from which the network is built for the two shapes, or a module, whose sizes
            are checked by a forward pass of two zero inputs in evaluation mode.
        in_shape: Shape of one input.
        out_shape: Shape of one output, which the network may also return flattened.
        role: What errors call the network, such as "The decoder".

    Raises:
        TypeError: If ``net`` is neither a recipe nor a module.
        ValueError: If a module does not map ``in_shape`` to ``out_shape``.

    Example:
        >>> net = Sized(nn.Linear(3, 8), (3,), (2, 4), "The decoder")
        >>> net(torch.zeros(6, 5, 3)).shape
        torch.Size([6, 5, 2, 4])
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
                f"{role} must be a net recipe such as nets.MLP(300, 300) or an nn.Module, found "
                f"{type(net).__name__}."
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
    like = next(net.parameters(), torch.zeros(()))
    dtype = like.dtype if like.is_floating_point() else None
    inputs = torch.zeros(2, *in_shape, dtype=dtype, device=like.device)
    try:
        with evaluation_mode(net), torch.no_grad():  # batch statistics stay as they are
            outputs = net(inputs)
    except Exception as error:
        raise ValueError(
            f"{role} failed on a zero input of shape {tuple(inputs.shape)}: {error}. "
            f"It must map (N, *{in_shape}) to (N, *{out_shape}), flattened or not."
        ) from error
    size, tensor = math.prod(out_shape), isinstance(outputs, Tensor)
    if not tensor or outputs.shape[0] != 2 or outputs[0].numel() != size:
        found = tuple(outputs.shape) if tensor else type(outputs).__name__
        raise ValueError(
            f"{role} gave {found} for an input of shape {tuple(inputs.shape)}, expected "
            f"(2, {size}) or (2, *{out_shape}). Change its last layer."
        )
