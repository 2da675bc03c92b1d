"""Interrupts by SIGINT and SIGTERM: as errors, or noted until the work at hand is done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

__all__ = ["Stop", "Terminated", "deferred", "terminable"]


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM, as batch systems do."""


class Stop:
    """Whether a signal asked to stop.

    Attributes:
        received: Its number, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._answered = False

    def answer(self, message: str) -> NoReturn:
        """Raise the error that the signal stands for."""
        self._answered = True
        raise (Terminated if self.received == signal.SIGTERM else KeyboardInterrupt)(message)


@contextmanager
def deferred() -> Iterator[Stop]:
    """Note the first SIGINT or SIGTERM instead of stopping at once; a second one acts as before.

    What was noted and not answered is sent again at the end. Signals that are ignored stay so.
    Outside the main thread nothing is changed.
    """
    stop = Stop()
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _: Any) -> None:
        stop.received = number
        restore()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, note)
    try:
        yield stop
    finally:
        restore()
        if stop.received is not None and not stop._answered:
            signal.raise_signal(stop.received)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM raise :class:`Terminated`, as SIGINT raises KeyboardInterrupt."""

    def terminate(*_: Any) -> NoReturn:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    if before in (signal.SIG_IGN, None):
        yield
        return
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
