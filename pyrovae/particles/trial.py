"""Which programs broadcast over particles, as runs that failed have shown."""

import sys
import warnings
import weakref
from typing import Any

import torch

from pyrovae.programs import Program, unwrapped


class Mark:
    """A point to go back to: undoes what later runs left in the random state, or in a graph being
    captured.
    """

    def __init__(self) -> None:
        self.graph = _captured_graph()
        if self.graph is None:
            self.state = torch.get_rng_state()
        else:
            self.num_nodes = len(self.graph.nodes)

    def undo(self) -> None:
        """Go back."""
        if self.graph is None:
            torch.set_rng_state(self.state)
            return
        for node in reversed(list(self.graph.nodes)[self.num_nodes :]):
            self.graph.erase_node(node)


def _captured_graph() -> Any:
    """The graph that ``make_fx`` is recording, if any."""
    module = sys.modules.get("torch.fx.experimental.proxy_tensor")  # slow to import for nothing
    mode = module.get_proxy_mode() if module is not None else None
    return None if mode is None else getattr(mode.tracer, "graph", None)


# Programs that have failed under a particle plate and work without it: by owner, the names of its
# methods.
_separate: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()


def _identity(program: Program) -> tuple[Any, str]:
    inner = unwrapped(program)
    owner = getattr(inner, "__self__", None)
    return (inner, "") if owner is None else (owner, getattr(inner, "__name__", ""))


def runs_separately(program: Program) -> bool:
    """Whether a trial has shown that a program does not broadcast over particles."""
    owner, name = _identity(program)
    try:
        return name in _separate.get(owner, ())
    except TypeError:  # neither hashable nor referable
        return False


def remember(program: Program, num_particles: int) -> None:
    """Note that a program does not broadcast over particles, and warn if that costs time."""
    owner, name = _identity(program)
    try:
        _separate.setdefault(owner, set()).add(name)
    except TypeError:
        return
    if num_particles > 1:
        warnings.warn(
            f"{name or owner} does not broadcast over a dimension of particles, so it runs once "
            "for each particle, which is right but slow. Let layers work on the right-most "
            "dimensions to run it once for all.",
            stacklevel=2,
        )
