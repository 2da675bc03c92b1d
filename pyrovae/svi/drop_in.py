"""The drop-in for :class:`pyro.infer.SVI`."""

from typing import Any, Literal

import pyro.infer
from pyro.optim import PyroOptim
from torch import Tensor

from pyrovae.compilation import Compiled
from pyrovae.estimators import Estimator
from pyrovae.objective import objective
from pyrovae.optim import check_optimizer, flush_denormals
from pyrovae.programs import Program, alone, is_stale, parameters_of, stored_parameters
from pyrovae.svi.step import FLUSH_EVERY, Step, compiled_of

__all__ = ["SVI"]


class SVI(pyro.infer.SVI):
    """Drop-in for :class:`pyro.infer.SVI` whose step is captured as one graph.

    As there, :meth:`step` minimises the loss summed over the data, subsampling scale included, by a
    Pyro optimiser, and returns it as a number. Every parameter that the programs meet at the first
    step is trained, whether it lives in modules or in Pyro's store.

    Args:
        model, guide: Pyro programs.
        optim: A :class:`pyro.optim.PyroOptim`.
        loss: One of :mod:`pyrovae.estimators`; a stock Pyro ELBO runs eagerly, since it reads
            values on the host at every step.
        capture, compile, steps: As for :class:`Step`.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian(shift=2.0)
        >>> optim = pyro.optim.Adam({"lr": 0.05})
        >>> svi = pv.SVI(oracle.model, oracle.guide, optim, pv.estimators.ELBO())
        >>> losses = [svi.step(oracle.sample(64)) for _ in range(20)]
        >>> losses[-1] < losses[0]
        True
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        optim: PyroOptim,
        loss: pyro.infer.ELBO,
        *,
        capture: bool = True,
        compile: bool | Literal["auto"] = "auto",
        steps: int | None = None,
    ):
        super().__init__(model, guide, optim, loss)
        check_optimizer(optim)
        self.estimator = loss
        self._objective = evaluated = objective(model, guide, loss, summed=True)
        self._loss = compiled_of(evaluated.report, evaluated, enabled=capture, backend=compile)
        self._options: dict[str, Any] = {"capture": capture, "compile": compile, "steps": steps}
        self._step: Step | None = None
        self._met: list[Tensor] | None = None
        self._stored: dict[str, Tensor] = {}
        self._eager_steps = 0
        if capture and not isinstance(loss, Estimator):
            self._loss.stop(
                f"{type(loss).__name__} reads values on the host; use pyrovae.estimators instead"
            )

    @property
    def compiled(self) -> Compiled:
        """The function that takes the steps; before the first one, the loss."""
        return self._loss if self._step is None else self._step.compiled

    def step(self, *args: Any, **kwargs: Any) -> float:
        """Take one step on the arguments of both programs; returns the loss."""
        with alone():
            if not isinstance(self.estimator, Estimator):
                self._eager_steps += 1
                if self._eager_steps % FLUSH_EVERY == 0:
                    flush_denormals(self.optim)
                return super().step(*args, **kwargs)  # type: ignore[return-value]
            met = self._meet(*args, **kwargs)
            if self._step is None:
                programs = self.model, self.guide, self.estimator
                self._step = Step(*programs, self.optim, met, summed=True, **self._options)
            return self._step.take(*args, **kwargs).loss.item()

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> float:
        """The loss on the arguments of both programs, without a step."""
        with alone():
            if self._loss.reason is not None:
                return super().evaluate_loss(*args, **kwargs)  # type: ignore[return-value]
            self._meet(*args, **kwargs)
            if not self._loss.graphs:
                self._objective.settle(*args, **kwargs)
            return self._loss(None, *args, **kwargs)[1].item()

    def _meet(self, *args: Any, **kwargs: Any) -> list[Tensor]:
        """What to train, found anew where Pyro's store no longer holds it."""
        if self._met is None or is_stale(self._stored):
            self._met = parameters_of(self.model, self.guide, *args, **kwargs)
            self._stored = stored_parameters(self._met)
            self._loss.clear()
            self._step = None
        return self._met
