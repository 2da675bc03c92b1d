"""Levels as one number each."""

import torch
from torch import Tensor, nn

from pyrovae.nets.recipe import Recipe

__all__ = ["OneHot", "one_hot"]


def one_hot(x: Tensor, num_levels: int) -> Tensor:
    """``(*shape, L)``: one at the level of each stored value k / (L - 1), zero at the others.

    It is linear between levels: pseudo-inputs of a Vamp prior are no whole levels, and need a
    gradient.
    """
    levels = torch.arange(num_levels, dtype=x.dtype, device=x.device)
    return (1 - (x.unsqueeze(-1) * (num_levels - 1) - levels).abs()).clamp(min=0)


class OneHot(Recipe):
    """Another recipe's network applied to levels as channels, one for each.

    It suits as an encoder of tokens, whose levels have no order: ``(L,)`` tokens become ``(V, L)``.

    Args:
        num_levels: The number V of levels; level k is stored as k / (V - 1), as
            ``likelihoods.Categorical`` has it.
        net: The recipe, such as ``nets.Conv(32, 64, dims=1)``.

    Raises:
        TypeError: If ``net`` is not a recipe.
        ValueError: If there are fewer than two levels.

    Example:
        >>> from pyrovae.nets import Conv
        >>> net = OneHot(27, Conv(8, dims=1)).build((12,), (20,))
        >>> net(torch.zeros(5, 12)).shape
        torch.Size([5, 20])
    """

    def __init__(self, num_levels: int, net: Recipe):
        if not isinstance(net, Recipe):
            raise TypeError(
                f"OneHot takes a recipe such as nets.MLP(128), found {type(net).__name__}."
            )
        if num_levels < 2:
            raise ValueError(f"OneHot needs num_levels >= 2, found {num_levels}.")
        self.num_levels, self.net = num_levels, net

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Module:
        net = self.net.build((self.num_levels, *in_shape), out_shape)
        return nn.Sequential(_OneHotInput(self.num_levels), net)


class _OneHotInput(nn.Module):
    def __init__(self, num_levels: int):
        super().__init__()
        self.num_levels = num_levels

    def forward(self, inputs: Tensor) -> Tensor:
        return one_hot(inputs, self.num_levels).movedim(-1, 1)
