"""What this package knows of a Pyro program: its modules, its parameters, its mode."""

from pyrovae.programs.checks import check_data, check_taken
from pyrovae.programs.devices import find_device
from pyrovae.programs.modes import Met, evaluation_mode, meet, parameters_of, undisturbed
from pyrovae.programs.modules import (
    Program,
    before_calls,
    floating_parameter,
    modules_of,
    unwrapped,
)
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
    "check_taken",
    "evaluation_mode",
    "find_device",
    "floating_parameter",
    "is_stale",
    "meet",
    "modules_of",
    "parameters_of",
    "register_parameters",
    "store_as_found",
    "stored_parameters",
    "undisturbed",
    "unwrapped",
]
