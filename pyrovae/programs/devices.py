"""The device that a name means, or CUDA where there is any."""

from typing import Any

import torch

__all__ = ["find_device"]


def find_device(name: str | torch.device | None = None) -> torch.device:
    """The device of this machine that is asked for; by default CUDA where there is any.

    Raises:
        ValueError: If there is no such device here.

    >>> find_device("cpu")
    device(type='cpu')
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:  # its message lists every kind of device that torch has ever known
        device = None
    if device is None or not _is_here(device):
        known = [kind for kind in ("cpu", "cuda", "mps", "xpu") if _is_here(torch.device(kind))]
        raise ValueError(f"There is no device {str(name)!r} here. Choose {' or '.join(known)}.")
    return device


def _is_here(device: torch.device) -> bool:
    """Whether torch can compute on it; of kinds that torch does not tell of, torch will say."""
    kind: Any = getattr(torch, device.type, None)
    if device.type in ("cpu", "meta") or not hasattr(kind, "is_available"):
        return device.type != "mps" or torch.backends.mps.is_available()
    return kind.is_available() and (device.index or 0) < kind.device_count()
