"""What this package knows of a Pyro program: its modules, its parameters, its mode."""

from pyrovae.programs.checks import check_data, num_positional
from pyrovae.programs.modes import Met, evaluation_mode, meet, parameters_of, undisturbed
from pyrovae.programs.modules import Program, before_calls, modules_of
from pyrovae.programs.store import (
    is_stale,
    register_parameters,
    store_as_found,
    stored_parameters,
)
from pyrovae.programs.turns import alone

__all__ = [
    "Met",
    "Program",
    "alone",
    "before_calls",
    "check_data",
    "evaluation_mode",
    "is_stale",
    "meet",
    "modules_of",
    "num_positional",
    "parameters_of",
    "register_parameters",
    "store_as_found",
    "stored_parameters",
    "undisturbed",
]
