"""How many threads a graph runs on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["one_thread"]


@contextmanager
def one_thread(wanted: bool) -> Iterator[None]:
    """Inside, torch computes on one thread if that is wanted; afterwards on as many as before.

    Small work gains nothing from a second thread, and where other processes want the cores, each of
    its many short turns would be waited for.

    Example:
        >>> with one_thread(True):
        ...     torch.get_num_threads()
        1
    """
    before = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
