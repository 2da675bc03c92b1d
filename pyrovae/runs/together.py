"""A run of several processes that ``torchrun`` has started: the first one writes, all work."""

import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from pyrovae.runs.config import Config
from pyrovae.runs.run import Run
from pyrovae.training import checkpoint
from pyrovae.training.distributed import Processes, rank_and_size

__all__ = ["follows", "restarted", "told"]


def follows() -> bool:
    """Whether this process leaves all files to the first one."""
    return rank_and_size()[0] > 0


def told(value: Any) -> Any:
    """What the first process has chosen, in all processes."""
    if rank_and_size()[1] > 1:
        Processes.join(torch.device("cpu"))
        chosen = [value]
        dist.broadcast_object_list(chosen, 0)
        (value,) = chosen
    return value


def restarted(config: Config, path: str | os.PathLike | None) -> bool:
    """Whether ``torchrun`` has started these processes anew, and the run that they had begun in
    the folder goes on. The first process looks at the folder, for all. It removes a run that has
    no checkpoint yet, so that the run begins anew.
    """
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    if not again or path is None:
        return False
    return told(None if follows() else _goes_on(Run(Path(path), config)))


def _goes_on(run: Run) -> bool:
    """Whether a folder has a run of this very configuration that can go on."""
    file = run.config_file
    if not file.is_file() or file.read_text(encoding="utf-8") != run.config.taken_along()[0]:
        return False  # nothing there yet, or something of another command's
    if checkpoint.exists(run.checkpoint) or run.weights.is_file():
        return True
    run.own()
    run.discard()
    return False
