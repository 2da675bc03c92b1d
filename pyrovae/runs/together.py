"""A run of several processes that ``torchrun`` has started: the first one writes, all work."""

import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from pyrovae.training.distributed import Processes, rank_and_size

__all__ = ["follows", "restarted", "told"]


def follows() -> bool:
    """Whether this process leaves all files to the first one."""
    return rank_and_size()[0] > 0


def told(path: Path | None) -> Path:
    """The path that the first process has chosen, in all processes."""
    if rank_and_size()[1] > 1:
        Processes.join(torch.device("cpu"))
        chosen: list[Any] = [str(path)]
        dist.broadcast_object_list(chosen, 0)
        path = Path(chosen[0])
    assert path is not None
    return path


def restarted(path: str | os.PathLike | None) -> bool:
    """Whether ``torchrun`` has started these processes anew, after the run had begun."""
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    return again and path is not None and (Path(path) / "config.yaml").is_file()
