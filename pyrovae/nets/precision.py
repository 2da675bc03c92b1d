"""Networks in bfloat16, while the programs around them keep their precision."""

from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["Bfloat16Networks"]

_LAYERS = frozenset(
    {
        F.linear,
        F.conv1d,
        F.conv2d,
        F.conv3d,
        F.conv_transpose1d,
        F.conv_transpose2d,
        F.conv_transpose3d,
    }
)


class Bfloat16Networks(TorchFunctionMode):
    """Context manager: dense and convolutional layers compute in bfloat16.

    Each layer rounds its input and weights to bfloat16 and returns its output in the dtype of its
    input. Unlike autocast, it leaves draws and log densities in their own precision, since their
    rounding errors would add up over the elements of a datum.

    Example:
        >>> import torch
        >>> layer, x = torch.nn.Linear(1, 1, bias=False), torch.tensor([[1.001]])
        >>> with torch.no_grad(), Bfloat16Networks():
        ...     (layer(x) / layer(torch.ones(1, 1))).item()  # 1.001 rounds to 1 in bfloat16
        1.0
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _LAYERS or not args[0].is_floating_point():
            return func(*args, **kwargs)
        rounded = [_rounded(value) for value in args]
        return func(*rounded, **{name: _rounded(value) for name, value in kwargs.items()}).to(
            args[0].dtype
        )


def _rounded(value: Any) -> Any:
    return value.bfloat16() if isinstance(value, Tensor) and value.is_floating_point() else value
