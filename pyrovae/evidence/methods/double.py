"""Programs in double precision, whatever the precision of their parameters."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["DoublePrecision"]


class DoublePrecision(TorchFunctionMode):
    """Context manager: every function of torch gets its tensors of lower precision in float64.

    The programs and their parameters stay as they are. Functions that change a tensor in place keep
    its precision. Tensors that are made without a dtype are in float64.
    """

    def __init__(self) -> None:
        super().__init__()
        self._parameters: dict[int, tuple[Tensor, Tensor]] = {}

    def __enter__(self) -> "DoublePrecision":
        self._default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        super().__enter__()
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        super().__exit__(kind, error, traceback)
        torch.set_default_dtype(self._default)
        # Such as from TorchScript, which looks at dtypes by itself.
        if isinstance(error, RuntimeError):
            error.add_note(
                "AIS computes in float64. AIS(precision='program') leaves the precision of the "
                "programs as it is."
            )

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _AS_THEY_ARE or (name.endswith("_") and not name.endswith("__")):
            return func(*args, **kwargs)
        widened = {key: self._widen(value) for key, value in kwargs.items() if key != "out"}
        return func(*(self._widen(value) for value in args), **{**kwargs, **widened})

    def _widen(self, value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return type(value)(map(self._widen, value)) if _holds_tensors(value) else value
        if not isinstance(value, Tensor) or value.dtype not in _LOWER:
            return value
        if not isinstance(value, nn.Parameter):
            return value.double()
        found = self._parameters.get(id(value))
        if found is None:  # no gradient runs to parameters here
            found = self._parameters[id(value)] = value, value.detach().double()
        return found[1]


_LOWER = (torch.float32, torch.float16, torch.bfloat16)
_AS_THEY_ARE = {"__get__", "__set__", "__setitem__", "double", "to", "type", "backward"}


def _holds_tensors(values: Any) -> bool:
    return any(isinstance(value, Tensor) for value in values) and type(values) in (tuple, list)
