"""One thread at a time runs programs."""

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["alone"]


class _Turn:
    """Whose turn it is to run programs in this process."""

    def __init__(self) -> None:
        self.process, self.used, self.lock = os.getpid(), False, threading.RLock()


_turn = _Turn()


@contextmanager
def alone() -> Iterator[None]:
    """Let one thread at a time run programs: Pyro's handlers and store belong to the process.

    In a process that was forked after its parent had run programs, torch computes with one thread,
    because its other threads did not survive the fork.
    """
    global _turn
    if _turn.process != os.getpid():
        forked, _turn = _turn.used, _Turn()
        if forked and torch.get_num_threads() > 1:
            warnings.warn(
                "This process was forked after its parent had trained or evaluated, so torch "
                "computes with one thread here. Start processes by multiprocessing's 'spawn' to "
                "use more.",
                stacklevel=3,
            )
            torch.set_num_threads(1)
    turn = _turn
    turn.used = True
    if not turn.lock.acquire(blocking=False):
        warnings.warn(
            "Another thread of this process trains or evaluates. Pyro's handlers belong to the "
            "process, so this call waits for it. Use processes to train at the same time.",
            stacklevel=3,
        )
        turn.lock.acquire()
    try:
        yield
    finally:
        turn.lock.release()
