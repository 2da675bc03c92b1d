"""The data that go to programs."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from pyrovae.programs.modules import Program, modules_of

__all__ = ["check_data"]


def check_data(programs: Sequence[Program], *data: Tensor) -> None:
    """Let each module behind the programs that has a ``check`` method look at the data, and raise.

    A module that takes fewer arguments than the programs, as one behind ``observe_part``, gets the
    first of them.

    Example:
        >>> import torch, pyrovae as pv
        >>> vae = pv.VAE(data_shape=3, latent_dim=2)
        >>> check_data([vae.model, vae.guide], torch.zeros(4, 5))
        Traceback (most recent call last):
            ...
        ValueError: Data must have shape (B, 3), found (4, 5).
    """
    for module in modules_of(*programs):
        check = getattr(module, "check", None)
        if callable(check):
            check(*data[: _num_positional(check)])


def _num_positional(function: Callable[..., Any]) -> int | None:
    """How many positional arguments a function takes; None for any number."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
