"""Start a sweep, or go on with one."""

from collections.abc import Mapping
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import yaml

from pyrovae import files
from pyrovae.declare import is_count
from pyrovae.runs.building import load_data
from pyrovae.runs.sweeps.declaration import Declaration
from pyrovae.runs.sweeps.progress import Screen
from pyrovae.runs.sweeps.queue import Queue
from pyrovae.runs.sweeps.result import Sweep
from pyrovae.runs.sweeps.study import open_study, optuna, quiet
from pyrovae.runs.sweeps.worker import Worker
from pyrovae.runs.sweeps.workers import run_workers
from pyrovae.runs.terminal import attempt, say

__all__ = ["sweep"]


def sweep(
    file: str | PathLike | Mapping[str, Any],
    out: str | PathLike | None = None,
    *,
    jobs: int = 1,
    storage: str | None = None,
    retry_failed: bool = False,
    progress: bool | None = None,
    trust: bool = False,
) -> Sweep:
    """Train every combination of some options with several seeds, and compare the models.

    The file, or a mapping of the same content, gives options of a run (:class:`pyrovae.Config`).
    An option with a list of values is an axis. ``seed: 5`` means the seeds 0 to 4.

    Each run has a folder of its own. The study lies in Optuna's storage, so that processes and
    machines that share the folder may work on one sweep. The same call goes on with an interrupted
    sweep: nothing finished is repeated, and runs whose process died go on from their checkpoint. A
    run that fails is a row with its reason.

    Args:
        file: A YAML file, or a mapping.
        out: The folder of the sweep; default ``sweeps/FILE``.
        jobs: Processes that train here, which share the threads of this machine.
        storage: The URL of a database for the study, such as ``postgresql://...``; default a
            journal file in the folder.
        retry_failed: Whether runs that failed are trained again.
        progress: Show progress bars; default only on a terminal.
        trust: Whether the file may name classes that are not pyrovae's own. To use them runs their
            code.

    Returns:
        The :class:`Sweep`, whose ``sweep.csv`` and ``sweep.html`` are in the folder.

    Raises:
        ImportError: If Optuna is not installed (``pip install 'pyrovae[sweep]'``).
        FileNotFoundError: If there is no such file, or no such data.
        ValueError: If the file declares no sweep, some value is refused whatever else is chosen, or
            the folder holds something else.
        KeyboardInterrupt: If interrupted, with the advice how to go on.

    Example:
        >>> import pyrovae as pv
        >>> options = {"data": "digits", "epochs": 20, "latent_dim": [2, 8], "seed": 3}
        >>> found = pv.sweep(options, "sweeps/digits")  # trains 2 x 3 models  # doctest: +SKIP
        >>> found.groups[0].comparison.best  # doctest: +SKIP
    """
    optuna()
    if not is_count(jobs):
        raise ValueError(f"jobs must be a positive integer, found {jobs!r}.")
    declaration, folder = _declared(file, out, trust)
    _check(declaration, folder)
    with quiet():
        study = _open(declaration, folder, storage)
        queue = Queue(study, declaration)
        _fill(queue, retry_failed, folder, jobs)
        screen = Screen(study, declaration, bars=progress)
        try:
            if jobs == 1:
                Worker(folder, declaration, study, partial(screen.refresh, force=False)).work()
            else:
                run_workers(folder, storage, queue, jobs, screen)
            screen.refresh()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"what is finished is kept in {folder}: go on with the same command"
            ) from None
        finally:
            screen.close()
    result = Sweep(folder, storage, trust=True)  # as declared here
    attempt("table and page", result.save)
    return result


def _declared(file: Any, out: Any, trust: bool) -> tuple[Declaration, Path]:
    if not isinstance(file, Mapping):
        default = Path("sweeps") / Path(file).stem
        declaration = Declaration.load(file, trust=trust)
        return declaration, default if out is None else Path(out)
    if out is None:
        raise ValueError("A sweep that is given as a mapping needs a folder: give out=...")
    return Declaration.of(file, trust=trust), Path(out)


def _check(declaration: Declaration, folder: Path) -> None:
    """Raise what every run would fail of, before anything is written."""
    if folder.is_file() or (
        folder.is_dir() and any(folder.iterdir()) and not (folder / "sweep.yaml").is_file()
    ):
        raise FileExistsError(
            f"{folder} is not empty, and holds no sweep. Give another folder (--out)."
        )
    config = declaration.check()
    options = {axis.option for axis in declaration.axes}
    if not any(option.startswith("data") for option in options):
        load_data(config)


def _open(declaration: Declaration, folder: Path, storage: str | None) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("logs", "runs"):
        (folder / name).mkdir(exist_ok=True)
    study = open_study(folder, storage, declaration)
    text = yaml.safe_dump(dict(declaration.given), sort_keys=False, allow_unicode=True)
    files.write(folder / "sweep.yaml", text)
    return study


def _fill(queue: Queue, retry_failed: bool, folder: Path, jobs: int) -> None:
    """Let the runs wait that are to be trained, and say how many there are."""
    queue.take_up_lost()
    queue.fill(retry_failed)
    waiting, trials = len(queue.trials(queue.states.WAITING)), queue.declaration.trials
    draws = f", {trials} models drawn by a sampler" if trials else ""
    say("sweep", f"{folder}: {waiting} runs to train{draws}, {jobs} at a time")
