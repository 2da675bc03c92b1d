"""A hash of what tensors hold."""

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["content_hash"]


def content_hash(tensors: Iterable[Tensor], size: int = 8) -> bytes:
    """A hash of so many bytes of the kinds, shapes and values of tensors."""
    digest = hashlib.blake2b(digest_size=size)
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        content: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(memoryview(content))
    return digest.digest()
