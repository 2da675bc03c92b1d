"""Interrupts by SIGINT and SIGTERM: as errors, or noted until the work at hand is done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

__all__ = ["Stop", "Terminated", "deferred", "ignored", "terminable"]


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

    for number in _heard():
        before[number] = signal.signal(number, note)
    try:
        yield stop
    finally:
        restore()
        if stop.received is not None and not stop._answered:
            signal.raise_signal(stop.received)


@contextmanager
def ignored() -> Iterator[None]:
    """Let SIGINT and SIGTERM pass, as where another process answers them. Outside the main thread
    nothing is changed.
    """
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _heard()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _heard() -> list[int]:
    """Those of SIGINT and SIGTERM that this thread may handle: neither ignored nor handled outside
    Python, where the handler could not be put back.
    """
    if threading.current_thread() is not threading.main_thread():
        return []
    stops = signal.SIGINT, signal.SIGTERM
    return [each for each in stops if signal.getsignal(each) not in (signal.SIG_IGN, None)]


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM raise :class:`Terminated`, as SIGINT raises KeyboardInterrupt."""

    def terminate(*_: Any) -> NoReturn:
        raise Terminated

    if signal.SIGTERM not in _heard():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
