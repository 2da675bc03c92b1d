"""One worker of a sweep: it takes runs from the study and trains them, until none is left.

``python -m pyrovae.runs.sweeps.worker`` is such a process; it reads where to work from its input.
"""

import json
import math
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from pyrovae.errors import in_a_line
from pyrovae.evidence import Evidence
from pyrovae.runs import pipeline
from pyrovae.runs.building import load_data
from pyrovae.runs.run import Run
from pyrovae.runs.sweeps.declaration import Declaration
from pyrovae.runs.sweeps.queue import Queue
from pyrovae.runs.sweeps.study import open_study, optuna, quiet
from pyrovae.training import checkpoint

__all__ = ["Worker"]

_PULSE = 60.0  # seconds between signs of life
_REPORT = 1.0  # seconds between reports of the bound, where no pruner listens


class Worker:
    """Trains the runs of a sweep, one after another.

    Args:
        folder: The folder of the sweep.
        declaration: The sweep.
        study: Its study.
        shown: Called after each epoch and each run.
    """

    def __init__(
        self,
        folder: Path,
        declaration: Declaration,
        study: Any,
        shown: Callable[[], Any] = lambda: None,
    ):
        self.folder, self.declaration, self.study = folder, declaration, study
        self.queue, self.shown = Queue(study, declaration), shown
        self.prunes = declaration.pruner is not None

    def work(self) -> None:
        """Train until no run is left.

        Raises:
            KeyboardInterrupt: If interrupted; the run that was trained waits for the next worker.
        """
        try:
            while (trial := self.queue.claim()) is not None:
                self._work_on(trial)
                self.shown()
        finally:
            self.queue.close()

    def _work_on(self, trial: Any) -> None:
        name = trial.user_attrs.get("run")
        if name is None:
            trial.set_user_attr("run", name := self._free_name(trial))
        log = self.folder / "logs" / f"{name}.txt"
        try:
            with (
                log.open("a", encoding="utf-8") as text,
                redirect_stdout(text),
                redirect_stderr(text),
                _pulse(trial),
            ):
                run, value = self._train(trial, name)
                facts = _facts(run, value)
            for key, fact in facts.items():
                trial.set_user_attr(key, fact)
            self.study.tell(trial, value)
        except optuna().TrialPruned:
            self.study.tell(trial, state=self.queue.states.PRUNED, skip_if_finished=True)
        except KeyboardInterrupt:
            self.queue.put_back(self.study.trials[trial.number])
            raise
        except optuna().exceptions.UpdateFinishedTrialError:
            pass  # this machine was silent for so long that another took the run over
        except Exception as error:
            with log.open("a", encoding="utf-8") as lines:
                traceback.print_exception(error, file=lines)
            trial.set_user_attr("reason", in_a_line(error))
            self.study.tell(trial, state=self.queue.states.FAIL)

    def _free_name(self, trial: Any) -> str:
        name = f"{trial.number:03d}-{_name_of(trial.params, trial.user_attrs['seed'])}"
        runs = self.folder / "runs"
        taken = {path.name for path in runs.iterdir()} if runs.is_dir() else set()
        number = 1
        while (free := name if number == 1 else f"{name}-{number}") in taken:
            number += 1
        return free

    def _train(self, trial: Any, name: str) -> tuple[Run, float]:
        """The finished run, and its best validation bound."""
        path = self.folder / "runs" / name
        callback = self._callback(trial)
        # To read it loads the classes that the sweep names: so the run may name them, and no other.
        config = self.declaration.config(trial.params, trial.user_attrs["seed"])
        if checkpoint.exists(path / "checkpoint.pt"):  # with or without weights it is not finished
            run = pipeline.resume(path, callback=callback)
        elif (path / "weights.safetensors").is_file():
            run = Run.open(path)
        else:
            if path.is_dir() and any(path.iterdir()):  # it was stopped before its first epoch
                trial.set_user_attr("run", name := self._free_name(trial))
                path = self.folder / "runs" / name
            run = pipeline.train(config, path, callback=callback)
        if not run.evidence.is_file():
            vae: Any = run.load_vae(run.config.device)
            method = run.config.build("method")
            run.save_evidence(pipeline.held_out(run, vae, method, load_data(run.config)))
        return run, max(row["valid_bound"] for row in _rows(run))

    def _callback(self, trial: Any) -> Callable[[dict[str, float]], None]:
        seen = {*self.study.trials[trial.number].intermediate_values}
        last = -math.inf

        def callback(row: dict[str, float]) -> None:
            nonlocal last
            step, due = int(row["epoch"]), time.monotonic() - last > _REPORT
            if (self.prunes or due) and step not in seen:
                trial.report(row["valid_bound"], step)
                last = time.monotonic()
            self.shown()
            if self.prunes and trial.should_prune():
                raise optuna().TrialPruned

        return callback


def _name_of(values: dict[str, Any], seed: int) -> str:
    """A run in the words of a file's name."""
    words = [f"{option}-{value}" for option, value in values.items()]
    return re.sub(r"[^\w.]+", "-", "-".join([*words, f"seed-{seed}"]))[:100].strip("-")


def _rows(run: Run) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [{k: math.nan if v is None else v for k, v in row.items()} for row in rows]


def _facts(run: Run, bound: float) -> dict[str, Any]:
    """What the study keeps of a finished run, for its own plots and dashboard."""
    evidence = Evidence.load(run.evidence)
    vae: Any = run.load_vae("cpu")
    return {
        "log_px": evidence.mean(),
        "monte_carlo_error": evidence.monte_carlo_error(),
        "test_set_error": evidence.test_set_error(),
        "valid_bound": bound,
        "seconds": math.fsum(row["seconds"] for row in _rows(run)),
        "parameters": sum(p.numel() for p in vae.parameters() if p.requires_grad),
    }


@contextmanager
def _pulse(trial: Any):
    """Signs of life while a run is trained, for workers on other machines."""
    done = threading.Event()
    parent = os.environ.get("PYROVAE_SWEEP_PARENT")

    def beat() -> None:
        since = time.monotonic()
        while not done.wait(1.0):
            if parent is not None and os.getppid() != int(parent):
                os._exit(1)  # the sweep that started this process was killed
            if time.monotonic() - since > _PULSE:
                with suppress(Exception):  # the next one may reach the storage again
                    trial.set_user_attr("alive", time.time())
                since = time.monotonic()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def main() -> int:
    """Work in the sweep that standard input names."""
    given = json.loads(sys.stdin.read())
    folder = Path(given["folder"])
    # The sweep that started this process has looked through the file before it wrote it.
    declaration = Declaration.load(folder / "sweep.yaml", trust=True)
    with quiet():
        study = open_study(folder, given["storage"], declaration, given["worker"])
        try:
            Worker(folder, declaration, study).work()
        except KeyboardInterrupt:
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
