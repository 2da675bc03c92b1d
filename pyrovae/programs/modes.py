"""Runs of programs that leave things as they were, and what such a run meets."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from pyro import poutine
from torch import Tensor, nn

from pyrovae.programs.checks import check_taken
from pyrovae.programs.modules import Program, before_calls, modules_of

__all__ = ["Met", "evaluation_mode", "meet", "parameters_of", "undisturbed"]


class Met(NamedTuple):
    """What one run of guide and model meets."""

    parameters: list[Tensor]
    """Every unconstrained parameter, each once, guide first."""
    modules: list[nn.Module]
    """The modules, without those that are parts of another one."""


def meet(model: Program, guide: Program, *args: Any, **kwargs: Any) -> Met:
    """Run the pair once, and tell what it meets.

    The run is without gradients or effect on the random state and on buffers. Modules that are
    called on the way count, however the programs hold them.
    """
    for program in (guide, model):
        check_taken(program, *args, **kwargs)
    called: dict[int, nn.Module] = {}
    with (
        before_calls(lambda module: called.setdefault(id(module), module)),
        undisturbed(model, guide),
        poutine.trace(param_only=True) as capture,
        poutine.block(hide_types=["sample"]),
    ):
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        poutine.replay(model, trace=guide_trace)(*args, **kwargs)
    sites: list[Any] = list(capture.trace.nodes.values())
    found = {id(p): p for p in (site["value"].unconstrained() for site in sites)}
    modules = {id(m): m for m in (*modules_of(guide, model), *called.values())}
    for module in modules.values():
        for parameter in module.parameters():
            if parameter.requires_grad:
                found.setdefault(id(parameter), parameter)
    parts = {id(p) for m in modules.values() for p in m.modules() if p is not m}
    return Met(list(found.values()), [m for key, m in modules.items() if key not in parts])


def parameters_of(model: Program, guide: Program, *args: Any, **kwargs: Any) -> list[Tensor]:
    """The parameters that :func:`meet` finds.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian()
        >>> found = parameters_of(oracle.model, oracle.guide, oracle.sample(4))
        >>> {id(p) for p in found} == {id(p) for p in oracle.parameters()}
        True
    """
    return meet(model, guide, *args, **kwargs).parameters


@contextmanager
def undisturbed(*programs: Program) -> Iterator[None]:
    """Run programs without gradients, and put the random state and the modules' buffers back."""
    before: dict[int, tuple[Tensor, Tensor]] = {}

    def remember(module: nn.Module) -> None:
        for buffer in module.buffers():
            if id(buffer) not in before:
                before[id(buffer)] = buffer, buffer.clone()

    for module in modules_of(*programs):
        remember(module)
    with torch.no_grad(), torch.random.fork_rng(), before_calls(remember):
        try:
            yield
        finally:
            for buffer, value in before.values():
                buffer.copy_(value)


@contextmanager
def evaluation_mode(*programs: Program) -> Iterator[None]:
    """Put the programs' modules in eval mode; each submodule is back in its own mode afterwards.

    Every module that this thread calls inside the context is put in eval mode as well, however the
    programs hold it.

    Example:
        >>> import pyrovae as pv
        >>> vae = pv.VAE(data_shape=3, latent_dim=2)
        >>> with evaluation_mode(vae.model, vae.guide):
        ...     print(vae.training)
        False
        >>> vae.training
        True
    """
    modes: dict[int, tuple[nn.Module, bool]] = {}

    def remember(module: nn.Module) -> None:
        for part in module.modules():
            modes.setdefault(id(part), (part, part.training))

    def settle(module: nn.Module) -> None:
        if module.training:
            remember(module)
            module.eval()

    try:
        with before_calls(settle):
            for module in modules_of(*programs):
                remember(module)
                module.eval()
            yield
    finally:
        for module, training in modes.values():
            module.training = training
