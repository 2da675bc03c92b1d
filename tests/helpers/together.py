"""Several processes on this machine that work together, as ``torchrun`` starts them."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pyrovae

ROOT = Path(pyrovae.__file__).parents[1]


def free_port() -> int:
    """A port that nothing listens to."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def environment(**more: object) -> dict[str, str]:
    """The variables of a child: this package, one thread each."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    found = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return found | {name: str(value) for name, value in more.items()}


def start(words: Sequence[object], size: int, **more: object) -> list[subprocess.Popen]:
    """Start ``python WORDS`` so often, each with its rank."""
    group = {"WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), **more}
    command = [sys.executable, *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [
        subprocess.Popen(command, env=environment(RANK=rank, LOCAL_RANK=rank, **group), **pipes)
        for rank in range(size)
    ]


def finish(processes: Sequence[subprocess.Popen], seconds: float = 300) -> list[tuple]:
    """Exit code, output and errors of each, once all have ended."""
    try:
        return [
            (*process.communicate(timeout=seconds), process.returncode) for process in processes
        ]
    finally:
        for process in processes:
            process.kill()


def together(words: Sequence[object], size: int = 2, **more: object) -> list[tuple]:
    """Run ``python WORDS`` in so many processes; all must end well."""
    found = finish(start(words, size, **more))
    for output, errors, code in found:
        assert code == 0, f"{output}\n{errors}"
    return found
