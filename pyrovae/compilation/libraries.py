"""Compiled graphs as shared libraries on disk: each is built once, by a process of its own.

The process that trains never loads the compiler. It goes on while another one builds, and a library
that is there already is loaded within milliseconds.
"""

import contextlib
import functools
import hashlib
import os
import pickle
import platform
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyrovae.compilation.capture import Graph
from pyrovae.compilation.library_build import build, is_complete, loaded

__all__ = ["Library", "folder"]

_COMMAND = "from pyrovae.compilation.library_build import main; main()"


def folder() -> Path:
    """Where libraries are kept: ``PYROVAE_CACHE``, else a folder in the user's cache."""
    chosen = os.environ.get("PYROVAE_CACHE")
    if chosen:
        return Path(chosen)
    # Beside downloaded data, not among them: this folder may be deleted.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "pyrovae" / "compiled"


class Library:
    """A graph as a shared library: there already, or to be built.

    Its name is a hash of all that decides what it holds: the graph, the layouts of its inputs, the
    number of threads, the processor, torch and the compiler.

    Args:
        graph: On CPU.
        inputs: Examples of what it is called with.

    Raises:
        RuntimeError: If such a graph cannot be a library: it works on another device, or changes a
            tensor that shares memory with another one.
    """

    def __init__(self, graph: Graph, inputs: Sequence[Tensor]):
        tensors = [*graph.constants, *inputs]
        _check(graph, tensors)
        self._code = graph.module.graph.python_code("self").src
        self._threads = torch.get_num_threads()
        self._layouts = [(tuple(t.shape), t.stride(), t.dtype) for t in tensors]
        self.name = self._hash()
        self.path = folder() / self.name
        _own(self.path.parent)
        self._process: subprocess.Popen | None = None
        self._log: Any = None

    def start(self) -> None:
        """Let another process build the library, unless it is there."""
        if self._process is not None or is_complete(self.path):
            return
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  read when the process has ended
        self._process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            env=environment,
        )
        weakref.finalize(self, _end, self._process)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as sink:
            pickle.dump((self.path, self._code, self._layouts, self._threads), sink)

    def load(self) -> Callable[..., Sequence[Tensor]]:
        """Wait for the library where it is being built, build it here where nobody does; load it.

        Raises:
            RuntimeError: If it cannot be built or loaded.
        """
        self._wait()
        for last in (False, True):
            if not is_complete(self.path):
                build(self.path, self._code, self._layouts, self._threads)
            try:
                run = loaded(self.path / "graph.so")
            except RuntimeError:
                if last:
                    raise
                shutil.rmtree(self.path, ignore_errors=True)  # of another machine, or damaged
            else:
                return lambda *tensors: run(list(tensors))
        raise AssertionError

    def _wait(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.wait() == 0 or is_complete(self.path):
            return
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip().splitlines() or ["it was ended"]
        raise RuntimeError(said[-1])

    def _hash(self) -> str:
        parts = [
            self._code,
            repr(self._layouts),
            str(self._threads),
            torch.__version__,
            str(torch.version.git_version),
            _processor(),
            *sorted(f"{key}={os.environ[key]}" for key in os.environ if _decides(key)),
        ]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]


def _own(path: Path) -> None:
    """Make a folder that only its owner may write to; one of somebody else is refused."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if hasattr(os, "getuid") and path.stat().st_uid != os.getuid():
        raise RuntimeError(
            f"{path} belongs to another user; set PYROVAE_CACHE to a folder of yours"
        )


def _check(graph: Graph, tensors: Sequence[Tensor]) -> None:
    if any(node.op == "get_attr" for node in graph.module.graph.nodes):
        raise RuntimeError("the graph holds functions of its own")
    if any(t.device.type != "cpu" or t.layout is not torch.strided for t in tensors):
        raise RuntimeError("not all tensors are on CPU")
    owners: dict[int, list[Tensor]] = {}
    for tensor in tensors:
        owners.setdefault(tensor.untyped_storage().data_ptr(), []).append(tensor)
    written = {id(t) for t in graph.written}
    for address, sharing in owners.items():
        if address and len(sharing) > 1 and any(id(t) in written for t in sharing):
            raise RuntimeError("a tensor that the graph changes shares memory with another one")


def _decides(variable: str) -> bool:
    chosen = variable.startswith("TORCHINDUCTOR_") and variable != "TORCHINDUCTOR_CACHE_DIR"
    return chosen or variable in ("CXX", "ATEN_CPU_CAPABILITY")


@functools.cache
def _processor() -> str:
    """What a compiler that builds for this very processor looks at."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        kept = ("model", "flags", "Features", "CPU part")
        return "\n".join(dict.fromkeys(line for line in lines if line.startswith(kept)))
    return platform.processor()


def _end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()
