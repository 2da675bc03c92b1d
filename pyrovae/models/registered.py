"""Modules whose copies share no parameter, whatever Pyro's global parameter store holds."""

import itertools
from typing import Any

from torch import nn

from pyrovae.programs import register_parameters

__all__ = ["Registered"]

_serial = itertools.count()


class Registered(nn.Module):
    """A module that shows its parameters to Pyro under a name of its own. A copy or an unpickled
    one gets another name.
    """

    def __init__(self) -> None:
        super().__init__()
        self._serial = next(_serial)

    def register_parameters(self, *names: str) -> None:
        """Show the parameters of the named modules to active handlers, as :func:`pyro.module`."""
        for name in names:
            prefix = f"{type(self).__name__.lower()}{self._serial}.{name}"
            register_parameters(getattr(self, name), prefix)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        self._serial = next(_serial)

    def __getstate__(self) -> dict[str, Any]:
        # Pyro's parameter store leaves a weak reference in each parameter, which cannot be pickled.
        for parameter in self.parameters():
            vars(parameter).pop("unconstrained", None)
        return self.__dict__.copy()
