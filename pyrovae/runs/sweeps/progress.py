"""How far a sweep is: one screen for all its workers."""

import sys
import time
from typing import Any

from pyrovae.runs.sweeps.axes import in_words
from pyrovae.runs.sweeps.declaration import Declaration
from pyrovae.runs.sweeps.queue import latest
from pyrovae.runs.terminal import say

__all__ = ["Screen", "described"]

_EVERY = 0.5  # seconds between looks


class Screen:
    """On a terminal a bar for the sweep and one for each run that is trained; a line for each run
    that ends.

    Args:
        study: The study.
        declaration: The sweep.
        bars: Whether to show bars; default only on a terminal.
    """

    def __init__(self, study: Any, declaration: Declaration, *, bars: bool | None = None):
        from tqdm.auto import tqdm

        self.study, self.declaration = study, declaration
        self.stream, self.bars = sys.stderr, {}
        hidden = None if bars is None else not bars
        looks: dict[str, Any] = {"file": self.stream, "dynamic_ncols": True, "leave": False}
        self._bar = lambda **how: tqdm(disable=hidden, **looks, **how)
        trials = self._trials()
        self.ended = {trial.number for trial in trials if trial.state.is_finished()}
        counted = {"initial": len(self.ended), "total": len(trials)}
        self.total = self._bar(desc="sweep", unit="run", position=0, **counted)
        self.last = 0.0

    def refresh(self, *, force: bool = True) -> None:
        """Look at the study and show it; without ``force`` at most twice a second."""
        if not force and time.monotonic() - self.last < _EVERY:
            return
        self.last = time.monotonic()
        trials = self._trials()
        self.total.total = len(trials)
        for trial in trials:
            if trial.state.is_finished() and trial.number not in self.ended:
                self.ended.add(trial.number)
                self._tell(trial, len(trials))
        self.total.n = len(self.ended)
        self.total.refresh()
        running = [trial for trial in trials if trial.state.name == "RUNNING"]
        for number in {*self.bars} - {trial.number for trial in running}:
            self.bars.pop(number).close()
        for trial in running:
            self._show(trial)

    def close(self) -> None:
        """Clear the bars."""
        for bar in (*self.bars.values(), self.total):
            bar.close()

    def _trials(self) -> list[Any]:
        return [*latest(self.study.get_trials(deepcopy=False)).values()]

    def _tell(self, trial: Any, total: int) -> None:
        with self.total.external_write_mode(file=sys.stdout):  # bars make room
            say(f"{len(self.ended)}/{total}", f"{described(trial)}: {_outcome(trial)}")

    def _show(self, trial: Any) -> None:
        if trial.number not in self.bars:
            used = {-bar.pos for bar in self.bars.values() if hasattr(bar, "pos")}
            free = next(i for i in range(1, len(used) + 2) if i not in used)
            self.bars[trial.number] = self._bar(
                desc=described(trial)[:60],
                unit="epoch",
                total=self.declaration.epochs(trial.params),
                position=free,
            )
        bar, steps = self.bars[trial.number], trial.intermediate_values
        if steps:
            bar.n = max(steps)
            bar.set_postfix(valid=f"{steps[max(steps)]:.2f}", refresh=False)
        bar.refresh()


def described(trial: Any) -> str:
    """The values of a run and its seed, in words."""
    return ", ".join(filter(None, [in_words(trial.params), f"seed {trial.user_attrs['seed']}"]))


def _outcome(trial: Any) -> str:
    facts = trial.user_attrs
    if trial.state.name == "COMPLETE":
        return (
            f"log p(x) {facts['log_px']:.3f}, best validation bound {facts['valid_bound']:.3f}, "
            f"{facts['seconds']:.0f} s"
        )
    if trial.state.name == "PRUNED":
        steps = trial.intermediate_values
        return f"pruned after epoch {max(steps)}, validation bound {steps[max(steps)]:.3f}"
    return f"failed. {facts.get('reason', 'It was interrupted.')}"
