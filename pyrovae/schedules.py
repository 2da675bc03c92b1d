"""Schedules: a number for each training step, such as the beta of the KL term."""

import math
from abc import ABC, abstractmethod

from pyrovae.declare import Declared

__all__ = ["Schedule", "Constant", "Linear", "Cyclical", "GECO", "ControlVAE"]


def _check_beta(name: str, value: float) -> float:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be finite and not negative, found {value}.")
    return float(value)


class Schedule(Declared, ABC):
    """Base class of the schedules. A subclass defines ``__call__``, a function of the step counted
    from zero.

    A schedule that reacts to training sets ``feedback`` and defines ``update``, ``state_dict`` and
    ``load_state_dict`` as well. :func:`pyrovae.fit` calls ``update`` after each step, and saves the
    state with the training state.

    Attributes:
        warmup_steps: Number of steps during which early stopping does not count epochs without
            improvement.
        feedback: Whether :meth:`update` is called. If so, every step has to wait for its numbers,
            which is slower.

    Example:
        >>> class Halving(Schedule):
        ...     def __call__(self, step):
        ...         return 0.5**step
        >>> Halving()(step=2)
        0.25
    """

    warmup_steps: int = 0
    feedback: bool = False

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Value at ``step``."""

    def update(self, reconstruction: float, kl: float) -> None:
        """React to the last step.

        Args:
            reconstruction: Mean log p(x | z) of the batch, in nats per datum.
            kl: Mean KL of the batch without beta, in nats per datum.
        """

    def state_dict(self) -> dict:
        """The state that a schedule needs to continue; empty for a function of the step."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Restore what :meth:`state_dict` returned."""


class Constant(Schedule):
    """The same value at every step.

    Args:
        value: Finite and not negative.

    Example:
        >>> Constant(0.5)(step=100)
        0.5
    """

    def __init__(self, value: float = 1.0):
        self.value = _check_beta("value", value)

    def __call__(self, step: int) -> float:
        return self.value


class Linear(Schedule):
    """From ``start`` to ``stop`` in equal increments over ``steps`` steps, then ``stop``.

    References:
        Generating Sentences from a Continuous Space (Bowman et al., 2016,
        `arXiv:1511.06349 <https://arxiv.org/abs/1511.06349>`_); Ladder Variational Autoencoders
        (Sonderby et al., 2016,
        `arXiv:1602.02282 <https://arxiv.org/abs/1602.02282>`_): KL warm-up.

    Args:
        start, stop: Finite and not negative.
        steps: Steps from one to the other.

    Example:
        >>> warmup = Linear(0.0, 1.0, steps=100)
        >>> [warmup(step) for step in (0, 50, 100, 200)]
        [0.0, 0.5, 1.0, 1.0]
    """

    def __init__(self, start: float = 0.0, stop: float = 1.0, *, steps: int):
        self.start = _check_beta("start", start)
        self.stop = _check_beta("stop", stop)
        if steps < 1:
            raise ValueError(f"steps must be at least 1, found {steps}.")
        self.steps = self.warmup_steps = steps

    def __call__(self, step: int) -> float:
        return self.start + (self.stop - self.start) * min(step / self.steps, 1.0)


class Cyclical(Schedule):
    r"""Linear ramps from ``start`` to ``stop``, one in each period; the value stays at ``stop``
    between them.

    .. math:: \beta_t = \beta_0 + (\beta_1 - \beta_0) \min\!\left(1, \frac{t \bmod T}{\rho\,
              T}\right)

    References:
        Cyclical Annealing Schedule: A Simple Approach to Mitigating KL Vanishing (Fu et al., 2019,
        `arXiv:1903.10145 <https://arxiv.org/abs/1903.10145>`_), equation 6.

    Args:
        start, stop: Ends of each ramp.
        period: Steps T of one cycle.
        ratio: Fraction rho of a period during which the value rises, in (0, 1].
        cycles: Number of periods, after which the value stays at ``stop``; None has no end.

    Example:
        >>> cycles = Cyclical(0.0, 1.0, period=100, ratio=0.5, cycles=2)
        >>> [cycles(step) for step in (0, 25, 50, 100, 125, 200)]
        [0.0, 0.5, 1.0, 0.0, 0.5, 1.0]
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


class GECO(Schedule):
    r"""Beta as a Lagrange multiplier: the least KL that reaches a given reconstruction.

    .. math:: \beta \leftarrow \beta\, e^{-\eta \bar C_t}, \qquad
              \bar C_t = \alpha \bar C_{t-1} + (1 - \alpha)\, (\mathrm{target} - \mathbb E_q[\log
              p(x \mid z)])

    The paper minimises :math:`\mathrm{KL} + \lambda C`; here beta is :math:`1 / \lambda`, which is
    the same objective up to its overall scale, and C is in nats per datum.

    References:
        Taming VAEs (Rezende and Viola, 2018,
        `arXiv:1810.00597 <https://arxiv.org/abs/1810.00597>`_), algorithm 1.

    Args:
        target: The mean log p(x | z) to reach, in nats per datum.
        rate: Step eta.
        momentum: Alpha of the moving average, in [0, 1).
        initial: Beta at the start.
        low, high: Smallest and largest beta.

    Example:
        >>> beta = GECO(target=-80.0, rate=0.1, momentum=0.0)
        >>> beta.update(reconstruction=-90.0, kl=20.0)  # too poor, so beta falls
        >>> round(beta(step=1), 3)
        0.368
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


class ControlVAE(Schedule):
    r"""Beta set by a proportional-integral controller that keeps the KL at a target.

    .. math:: \beta_t = \frac{K_p}{1 + e^{e_t}} - K_i \sum_{j \le t} e_j + \beta_{\min}, \qquad
              e_t = \mathrm{target} - \mathrm{KL}_t

    clipped to [low, high]. The sum does not change while beta is clipped, so that it does not wind
    up.

    References:
        ControlVAE: Controllable Variational Autoencoder (Shao et al., 2020,
        `arXiv:2004.05988 <https://arxiv.org/abs/2004.05988>`_), equation 7 and algorithm 1.

    Args:
        target: The KL to reach, in nats per datum.
        proportional, integral: Gains.
        low, high: Smallest and largest beta; it starts at ``low``.

    Example:
        >>> beta = ControlVAE(target=20.0)
        >>> beta.update(reconstruction=-90.0, kl=30.0)  # more than the target, so beta rises
        >>> round(beta(step=1), 3)
        0.011
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
