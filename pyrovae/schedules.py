"""Schedules: a number for each training step, such as the beta of the KL term."""

import math
from abc import ABC, abstractmethod

__all__ = ["Schedule", "Constant", "Linear"]


def _check_beta(name: str, value: float) -> float:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be finite and not negative, found {value}.")
    return float(value)


class Schedule(ABC):
    """A function of the step, counted from zero. A new one is a subclass with ``__call__``.

    Attributes:
        warmup_steps: Steps during which early stopping does not lose patience.
    """

    warmup_steps: int = 0

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Value at ``step``."""

    def state_dict(self) -> dict:
        """What a schedule that listens to training must remember; nothing for a function of the step."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Take back what :meth:`state_dict` gave."""


class Constant(Schedule):
    """The same value at every step."""

    def __init__(self, value: float = 1.0):
        self.value = _check_beta("value", value)

    def __call__(self, step: int) -> float:
        return self.value

    def __repr__(self) -> str:
        return f"Constant({self.value})"


class Linear(Schedule):
    """From ``start`` to ``stop`` in equal increments over ``steps`` steps, then ``stop``.

    References:
        Generating Sentences from a Continuous Space (Bowman et al., 2016); Ladder Variational Autoencoders
        (Sonderby et al., 2016): KL warm-up.
    """

    def __init__(self, start: float = 0.0, stop: float = 1.0, *, steps: int):
        self.start = _check_beta("start", start)
        self.stop = _check_beta("stop", stop)
        if steps < 1:
            raise ValueError(f"steps must be at least 1, found {steps}.")
        self.steps = self.warmup_steps = steps

    def __call__(self, step: int) -> float:
        return self.start + (self.stop - self.start) * min(step / self.steps, 1.0)

    def __repr__(self) -> str:
        return f"Linear({self.start}, {self.stop}, steps={self.steps})"
