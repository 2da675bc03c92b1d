"""Updates of parameters from gradients: Adam's as a part of a captured step, and any optimiser's
own.
"""

from pyrovae.optim.adam import AdamUpdate
from pyrovae.optim.denormals import flush_denormals
from pyrovae.optim.torch_update import (
    OptimizerUpdate,
    check_optimizer,
    prefer_fused,
    torch_optimizers,
    update_for,
)

__all__ = [
    "AdamUpdate",
    "OptimizerUpdate",
    "check_optimizer",
    "flush_denormals",
    "prefer_fused",
    "torch_optimizers",
    "update_for",
]
