"""Schedules: a number for each training step, such as the beta of the KL term."""

import math
from abc import ABC, abstractmethod

__all__ = ["Schedule", "Constant", "Linear", "Cyclical", "GECO", "ControlVAE"]


def _check_beta(name: str, value: float) -> float:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be finite and not negative, found {value}.")
    return float(value)


class Schedule(ABC):
    """A function of the step, counted from zero. A new one is a subclass with ``__call__``.

    One that listens to training sets ``feedback`` and writes ``update``, ``state_dict`` and ``load_state_dict``
    as well: :func:`pyrovae.fit` tells it after each step what the step saw, and saves it with the training state.

    Attributes:
        warmup_steps: Steps during which early stopping does not lose patience.
        feedback: Whether :meth:`update` is to be called; it makes every step wait for its numbers.
    """

    warmup_steps: int = 0
    feedback: bool = False

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Value at ``step``."""

    def update(self, reconstruction: float, kl: float) -> None:  # noqa: B027
        """Hear of the last step: mean log p(x | z) and mean KL without beta, in nats per datum."""

    def state_dict(self) -> dict:
        """What a schedule that listens to training must remember; nothing for a function of the step."""
        return {}

    def load_state_dict(self, state: dict) -> None:  # noqa: B027
        """Take back what :meth:`state_dict` gave."""


class Constant(Schedule):
    """The same value at every step.

    Args:
        value: Finite and not negative.
    """

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

    Args:
        start, stop: Finite and not negative.
        steps: Steps from one to the other.
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


class Cyclical(Schedule):
    r"""A ramp from ``start`` to ``stop``, held there, and begun again every ``period`` steps.

    .. math:: \beta_t = \beta_0 + (\beta_1 - \beta_0) \min\!\left(1, \frac{t \bmod T}{\rho\, T}\right)

    References:
        Cyclical Annealing Schedule: A Simple Approach to Mitigating KL Vanishing (Fu et al., 2019), equation 6.

    Args:
        start, stop: Ends of each ramp.
        period: Steps T of one cycle.
        ratio: Part rho of a cycle that the ramp takes, in (0, 1].
        cycles: After so many cycles the value stays at ``stop``; None goes on forever.
    """

    def __init__(
        self,
        start: float = 0.0,
        stop: float = 1.0,
        *,
        period: int,
        ratio: float = 0.5,
        cycles: int | None = 4,
    ):
        self.start, self.stop = _check_beta("start", start), _check_beta("stop", stop)
        if period < 1:
            raise ValueError(f"period must be at least 1, found {period}.")
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio must be in (0, 1], found {ratio}.")
        if cycles is not None and cycles < 1:
            raise ValueError(f"cycles must be at least 1 or None, found {cycles}.")
        self.period, self.ratio, self.cycles = period, ratio, cycles
        self.warmup_steps = (
            round(period * ratio) if cycles is None else round(period * (cycles - 1 + ratio))
        )

    def __call__(self, step: int) -> float:
        if self.cycles is not None and step >= self.period * self.cycles:
            return self.stop
        done = (step % self.period) / (self.ratio * self.period)
        return self.start + (self.stop - self.start) * min(done, 1.0)

    def __repr__(self) -> str:
        return f"Cyclical({self.start}, {self.stop}, period={self.period}, ratio={self.ratio}, cycles={self.cycles})"


class GECO(Schedule):
    r"""Beta as the multiplier of a constraint: reconstruct at least this well, with the least KL.

    .. math:: \beta \leftarrow \beta\, e^{-\eta \bar C_t}, \qquad
              \bar C_t = \alpha \bar C_{t-1} + (1 - \alpha)\, (\mathrm{target} - \mathbb E_q[\log p(x \mid z)])

    The paper minimises :math:`\mathrm{KL} + \lambda C`; here beta is :math:`1 / \lambda`, which is the same objective
    up to its overall scale, and C is in nats per datum.

    References:
        Taming VAEs (Rezende and Viola, 2018), algorithm 1.

    Args:
        target: The mean log p(x | z) to reach, in nats per datum.
        rate: Step eta.
        momentum: Alpha of the moving average, in [0, 1).
        initial: Beta at the start.
        low, high: Ends that beta is kept within.
    """

    feedback = True

    def __init__(
        self,
        target: float,
        *,
        rate: float = 1e-3,
        momentum: float = 0.99,
        initial: float = 1.0,
        low: float = 1e-4,
        high: float = 1e4,
    ):
        if not math.isfinite(target):
            raise ValueError(f"target must be finite, found {target}.")
        if not rate > 0 or not 0 <= momentum < 1:
            raise ValueError(
                f"GECO needs rate > 0 and momentum in [0, 1), found {rate} and {momentum}."
            )
        if not 0 < low <= initial <= high < math.inf:
            raise ValueError(
                f"GECO needs 0 < low <= initial <= high, found {low}, {initial}, {high}."
            )
        self.target, self.rate, self.momentum = float(target), rate, momentum
        self.initial, self.low, self.high = initial, low, high
        self.beta = float(initial)
        self.average: float | None = None

    def __call__(self, step: int) -> float:
        return self.beta

    def update(self, reconstruction: float, kl: float) -> None:
        constraint = self.target - reconstruction
        if self.average is None:
            self.average = constraint
        else:
            self.average = self.momentum * self.average + (1 - self.momentum) * constraint
        log_beta = math.log(self.beta) - self.rate * self.average
        self.beta = math.exp(min(max(log_beta, math.log(self.low)), math.log(self.high)))

    def state_dict(self) -> dict:
        return {"beta": self.beta, "average": self.average}

    def load_state_dict(self, state: dict) -> None:
        self.beta, self.average = state["beta"], state["average"]

    def __repr__(self) -> str:
        ends = f"initial={self.initial}, low={self.low}, high={self.high}"
        return f"GECO({self.target}, rate={self.rate}, momentum={self.momentum}, {ends})"


class ControlVAE(Schedule):
    r"""Beta by a proportional-integral controller that holds the KL at a set point.

    .. math:: \beta_t = \frac{K_p}{1 + e^{e_t}} - K_i \sum_{j \le t} e_j + \beta_{\min}, \qquad
              e_t = \mathrm{target} - \mathrm{KL}_t

    kept within [low, high]. The sum stands still while beta is at an end, so that it does not wind up.

    References:
        ControlVAE: Controllable Variational Autoencoder (Shao et al., 2020), equation 7 and algorithm 1.

    Args:
        target: The KL to hold, in nats per datum.
        proportional, integral: Gains.
        low, high: Ends that beta is kept within; it starts at ``low``.
    """

    feedback = True

    def __init__(
        self,
        target: float,
        *,
        proportional: float = 0.01,
        integral: float = 1e-4,
        low: float = 0.0,
        high: float = 1.0,
    ):
        if not (math.isfinite(target) and target >= 0):
            raise ValueError(f"target must be finite and not negative, found {target}.")
        if proportional < 0 or integral < 0:
            raise ValueError(f"Gains must not be negative, found {proportional} and {integral}.")
        if not 0 <= low < high < math.inf:
            raise ValueError(f"ControlVAE needs 0 <= low < high, found {low} and {high}.")
        self.target, self.proportional, self.integral = float(target), proportional, integral
        self.low, self.high = float(low), float(high)
        self.beta, self.total = self.low, 0.0

    def __call__(self, step: int) -> float:
        return self.beta

    def update(self, reconstruction: float, kl: float) -> None:
        error = self.target - kl
        pull = self.proportional / (1 + math.exp(min(error, 700.0)))
        total = self.total - self.integral * error
        wanted = pull + total + self.low
        if self.low <= wanted <= self.high:
            self.total = total
        self.beta = min(max(wanted, self.low), self.high)

    def state_dict(self) -> dict:
        return {"beta": self.beta, "total": self.total}

    def load_state_dict(self, state: dict) -> None:
        self.beta, self.total = state["beta"], state["total"]

    def __repr__(self) -> str:
        gains = f"proportional={self.proportional}, integral={self.integral}"
        return f"ControlVAE({self.target}, {gains}, low={self.low}, high={self.high})"
