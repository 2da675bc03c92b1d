"""Everything that training changes, to keep a copy of and to put back."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Weights"]


class Weights:
    """Parameters, and buffers of the modules that programs call."""

    def __init__(self, modules: Sequence[nn.Module], parameters: Sequence[Tensor]):
        found = {id(p): p for p in parameters}
        for module in modules:
            found.update({id(b): b for b in module.buffers()})
        self.tensors = [t.data if isinstance(t, nn.Parameter) else t for t in found.values()]

    def copy(self) -> list[Tensor]:
        """Their present values."""
        return [tensor.detach().clone() for tensor in self.tensors]

    @torch.no_grad()
    def restore(self, values: Sequence[Tensor]) -> None:
        """Put the values of an earlier :meth:`copy` back."""
        for tensor, value in zip(self.tensors, values, strict=True):
            tensor.copy_(value)
