"""The data that go to programs."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from pyrovae.programs.modules import Program, modules_of

__all__ = ["check_data", "check_taken"]


def check_taken(function: Callable[..., Any], *data: Any, **kwargs: Any) -> None:
    """Raise a TypeError that names its arguments if a function does not take so many arrays.

    Example:
        >>> check_taken(lambda x, y: None, 1.0)
        Traceback (most recent call last):
            ...
        TypeError: <lambda> takes (x, y), and the data are 1 array. Give one for each, as a tuple.
    """
    try:
        signature = inspect.signature(getattr(function, "forward", function))
    except ValueError:  # a callable that tells nothing
        return
    try:
        signature.bind(*data, **kwargs)
    except TypeError:
        name = getattr(function, "__qualname__", type(function).__name__)
        number = "1 array" if len(data) == 1 else f"{len(data)} arrays"
        raise TypeError(
            f"{name} takes ({', '.join(signature.parameters)}), and the data are {number}. Give "
            "one for each, as a tuple."
        ) from None


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
    for program in programs:
        check_taken(program, *data)
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
