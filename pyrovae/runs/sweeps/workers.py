"""Several workers of a sweep on this machine, as processes that share its threads."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pyrovae.runs.sweeps.queue import Queue

__all__ = ["run_workers"]

_LOOK = 0.5  # seconds
_INTERRUPTED = 130
_PATIENCE = 60.0  # seconds for interrupted workers to save


def run_workers(folder: Path, storage: str | None, queue: Queue, jobs: int, screen: Any) -> None:
    """Start workers and wait until no run is left; one whose process dies is replaced.

    Raises:
        RuntimeError: If a worker ends with an error of its own.
        KeyboardInterrupt: Once the workers have saved and ended.
    """
    workers: list[subprocess.Popen] = []
    try:
        while (living := _living(workers)) or queue.has_work():
            _check(folder, workers)
            if len(living) < jobs and queue.has_work():
                workers.append(_start(folder, storage, len(workers), jobs))
                continue
            screen.refresh()
            time.sleep(_LOOK)
        _check(folder, workers)
    finally:
        _stop(workers)


def _living(workers: list[subprocess.Popen]) -> list[subprocess.Popen]:
    return [worker for worker in workers if worker.poll() is None]


def _start(folder: Path, storage: str | None, worker: int, jobs: int) -> subprocess.Popen:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = str(max(1, (cores or 1) // jobs))
    environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, **os.environ}
    environment["PYROVAE_SWEEP_PARENT"] = str(os.getpid())
    with _log(folder, worker).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pyrovae.runs.sweeps.worker"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the sweep, which tells its workers
        )
    given = {"folder": str(folder.resolve()), "storage": storage, "worker": worker}
    assert process.stdin is not None
    with process.stdin as words:
        words.write(json.dumps(given).encode())
    return process


def _log(folder: Path, worker: int) -> Path:
    return folder / "logs" / f"worker-{worker}.txt"


def _check(folder: Path, workers: list[subprocess.Popen]) -> None:
    """Raise for a worker that failed; one that was killed is nobody's fault."""
    for number, worker in enumerate(workers):
        if (worker.poll() or 0) > 0 and worker.returncode != _INTERRUPTED:
            log = _log(folder, number)
            last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no word"]
            raise RuntimeError(
                f"A worker ended with code {worker.returncode}: {last[0]} See {log}."
            )


def _stop(workers: list[subprocess.Popen]) -> None:
    """Interrupt the workers that still work, and wait until they have saved."""
    living = _living(workers)
    for worker in living:
        worker.send_signal(signal.SIGINT)
    deadline = time.monotonic() + _PATIENCE
    for worker in living:
        try:
            worker.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
