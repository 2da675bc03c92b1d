"""The runs of a sweep that wait, who works on which, and what became of them.

All of it lies in the study, so any number of processes and machines may take part. A run is a trial
of Optuna's: its values are the parameters, its training seed an attribute.
"""

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

from pyrovae.runs.process import is_gone, is_me, me
from pyrovae.runs.sweeps.declaration import Declaration
from pyrovae.runs.sweeps.study import optuna

__all__ = ["Queue", "key_of", "latest"]

GRACE = 600.0  # seconds without a sign of life after which an unseen process counts as gone
_DEATHS = 3  # of the process of a run at one epoch, after which it is given up
_LIVING: set[str] = set()  # workers of this process


def key_of(trial: Any) -> str:
    """What makes two trials the same run: their values and their seed."""
    return json.dumps([trial.params, trial.user_attrs.get("seed")], sort_keys=True)


def latest(trials: Sequence[Any]) -> dict[str, Any]:
    """For each run its trial: the one that is complete, or else the newest."""
    found: dict[str, Any] = {}
    for trial in trials:
        if "seed" not in trial.user_attrs or trial.user_attrs.get("twin"):
            continue
        before = found.get(key_of(trial))
        if before is None or before.state.name != "COMPLETE":
            found[key_of(trial)] = trial
    return found


class Queue:
    """The runs of a study, and one worker's part in them.

    Args:
        study: The study.
        declaration: The sweep.
    """

    def __init__(self, study: Any, declaration: Declaration):
        self.study, self.declaration = study, declaration
        self.name = {**me(), "token": uuid.uuid4().hex}
        self.states: Any = optuna().trial.TrialState

    def fill(self, retry_failed: bool = False) -> None:
        """Add the runs that are declared and not there yet, each model once before any model
        twice.
        """
        from optuna.distributions import CategoricalDistribution

        known = set()
        for key, trial in latest(self.trials()).items():
            failed = trial.state == self.states.FAIL
            if not failed or ("reason" in trial.user_attrs and not retry_failed):
                known.add(key)
        if self.declaration.sampler is None:
            choices = {a.option: CategoricalDistribution(a.names) for a in self.declaration.axes}
            combinations = [(values, choices) for values in self.declaration.grid()]
        else:
            drawn = [
                t for t in self.trials() if t.user_attrs.get("draw") and "seed" in t.user_attrs
            ]
            combinations = [(trial.params, trial.distributions) for trial in drawn]
        for seed in self.declaration.seeds:
            for values, distributions in combinations:
                self._add(values, distributions, seed, known)

    def trials(self, *states: Any) -> list[Any]:
        """All trials of the study, or those in some states."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def has_work(self) -> bool:
        """Whether there is a run that nobody works on."""
        self.take_up_lost()
        return bool(self.trials(self.states.WAITING)) or self._may_draw()

    def claim(self) -> Any:
        """A run that is this worker's from now on, as an Optuna trial; None if none is left."""
        _LIVING.add(self.name["token"])
        while self.has_work():
            trial = self.study.ask()
            if "seed" not in trial.user_attrs and not self._draw(trial):
                continue
            trial.set_user_attr("worker", self.name)
            trial.set_user_attr("alive", time.time())
            if twin := self._twin(trial):
                self._leave(trial, twin)
                continue
            return trial
        return None

    def close(self) -> None:
        """Say that this worker works no more."""
        _LIVING.discard(self.name["token"])

    def put_back(self, trial: Any, *, died: bool = False) -> None:
        """Let another worker go on with a run: the trial ends, and a copy of it waits."""
        attrs = {k: v for k, v in trial.user_attrs.items() if k not in ("worker", "alive")}
        steps = trial.intermediate_values
        if died:
            attrs["deaths"] = [*attrs.get("deaths", []), max(steps, default=0)]
        try:
            self.study.tell(trial.number, state=self.states.FAIL)
        except (ValueError, optuna().exceptions.UpdateFinishedTrialError):
            return  # another worker was faster
        last = attrs.get("deaths", [])[-_DEATHS:]
        if len(last) == _DEATHS and len(set(last)) == 1:
            attrs["reason"] = (
                f"The process died {_DEATHS} times after epoch {last[0]}. Was there enough memory?"
            )
            state = self.states.FAIL
        else:
            state = self.states.WAITING
        copy = optuna().trial.create_trial(
            state=state,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs=attrs,
            intermediate_values=steps,
        )
        self.study.add_trial(copy)

    def take_up_lost(self) -> None:
        """Put back the runs whose worker is no more."""
        for trial in self.trials(self.states.RUNNING):
            if _is_lost(trial):
                self.put_back(trial, died=True)

    def _add(self, values: Any, distributions: Any, seed: int, known: set[str]) -> None:
        """Let a run wait that is not known yet."""
        trial = optuna().trial.create_trial(
            state=self.states.WAITING,
            params=dict(values),
            distributions=dict(distributions),
            user_attrs={"seed": seed},
        )
        if key_of(trial) not in known:
            known.add(key_of(trial))
            self.study.add_trial(trial)

    def _may_draw(self) -> bool:
        draws = sum(1 for trial in self.trials() if trial.user_attrs.get("draw"))
        return self.declaration.trials is not None and draws < self.declaration.trials

    def _draw(self, trial: Any) -> bool:
        """Let the sampler choose the values of a new trial; its other seeds wait."""
        if not self._may_draw():  # another worker took what had waited, or drew the last
            trial.set_user_attr("twin", True)
            self.study.tell(trial, state=self.states.FAIL)
            return False
        trial.set_user_attr("draw", True)
        for axis in self.declaration.axes:
            axis.suggest(trial)
        first, *others = self.declaration.seeds
        trial.set_user_attr("seed", first)
        known = {*latest(self.trials())}
        for seed in others:
            self._add(trial.params, trial.distributions, seed, known)
        return True

    def _twin(self, trial: Any) -> Any:
        """Another trial of the same run that is done, or that came before and is not lost."""
        for other in self.trials():
            if (
                other.number != trial.number
                and not other.user_attrs.get("twin")
                and key_of(other) == key_of(trial)
                and (
                    other.state in (self.states.COMPLETE, self.states.PRUNED)
                    or (other.state == self.states.RUNNING and other.number < trial.number)
                )
            ):
                return other
        return None

    def _leave(self, trial: Any, twin: Any) -> None:
        """End a trial without work; its sampler hears what the twin gave."""
        trial.set_user_attr("twin", True)
        if twin.value is None:
            self.study.tell(trial, state=self.states.FAIL)
        else:
            self.study.tell(trial, twin.value)


def _is_lost(trial: Any) -> bool:
    """Whether nobody works on a running trial any more."""
    worker = trial.user_attrs.get("worker") or {}
    if is_me(worker):
        return worker["token"] not in _LIVING
    if (gone := is_gone(worker)) is not None:
        return gone
    started = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
    return time.time() - trial.user_attrs.get("alive", started) > GRACE
