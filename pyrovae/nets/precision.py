"""Networks in bfloat16 under programs that stay in their own precision."""

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
    """While active, dense and convolutional layers compute in bfloat16 and hand back the precision they were given.

    Autocast would also round draws and log-densities, whose errors add up over the elements of a datum; here only
    the products inside the layers are rounded.
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
