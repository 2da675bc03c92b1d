"""Build a graph's shared library. This runs in a process of its own, or where a library is waited
for.
"""

import functools
import gc
import hashlib
import logging
import math
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.fx import _pytree as fx_pytree
from torch.utils import _pytree as pytree

from pyrovae.compilation.compiler_runs import quick_compiler_runs

__all__ = ["build", "is_complete", "loaded", "main", "without_cuda_warning"]

_OPTIONS = {
    "fallback_random": True,  # draws stay torch's own
    "size_asserts": False,  # layouts are checked before the call
    "cpp_cache_precompile_headers": False,  # they pay from some ten files on, and these are two
    "aot_inductor.precompile_headers": False,
    "aot_inductor.compile_wrapper_opt_level": "O0",  # it calls kernels and computes nothing
    "aot_inductor.enable_line_tables": False,
}

_LOAD = "import sys; from pyrovae.compilation.library_build import loaded; loaded(sys.argv[1])"

_NICE = 5
"""How far a process that builds stands back behind the one that goes on training."""


def build(
    path: Path, code: str, layouts: Sequence[Any], threads: int, *, alone: bool = False
) -> None:
    """Build the library of a graph in the folder ``path``, which appears when all of it is there.

    A compiler whose C++ runtime is not that of torch makes libraries that end the process which
    loads them. So each is loaded here first, where a process builds ``alone``. Elsewhere another
    process loads the first one that a compiler has made.

    Args:
        path: The folder.
        code: The graph, as Python code of a function ``forward``.
        layouts: Shape, strides and dtype of each of its inputs.
        threads: How many threads its kernels use.
        alone: Whether this process does nothing else, so that it may end.

    Raises:
        Exception: Whatever the compiler raises.
        RuntimeError: If a process that loads the library ends.
    """
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if is_complete(path):
            return
        shutil.rmtree(path, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="building") as temporary:
            work = Path(temporary) / "library"
            work.mkdir()
            try:
                with quick_compiler_runs():
                    _compile(work, code, layouts, threads)
            except Exception:
                # A process that was killed may have left half a file in the compiler's own cache.
                with _fresh_cache(temporary):
                    _compile(work, code, layouts, threads)
            # Calls of operators without a C interface are looked for beside the library.
            for operators in work.glob("*.wrapper.json"):
                operators.rename(work / "graph.json")
            for file in work.rglob("*"):
                if file.suffix in (".cpp", ".o", ".S", ".h"):
                    file.unlink()
            tried = path.parent / f"loads-{_compiler()}"
            if alone:
                loaded(work / "graph.so")
            elif not tried.exists():
                _load_apart(work / "graph.so")
            tried.touch()
            (work / "sha256").write_text(_hash(work / "graph.so"))
            os.replace(work, path)


def is_complete(path: Path) -> bool:
    """Whether the folder holds a library that is as it was built."""
    try:
        return (path / "sha256").read_text() == _hash(path / "graph.so")
    except OSError:
        return False


def loaded(path: Path | str) -> Callable[[list[torch.Tensor]], list[torch.Tensor]]:
    """The function of a library.

    Raises:
        RuntimeError: If it cannot be loaded.
    """
    from pyrovae.compilation.products import register

    register()  # a library looks for the operators that it calls
    return torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1).run  # type: ignore[attr-defined]


def main() -> None:
    """Build what the standard input describes; the last line on stderr says what went wrong."""
    if hasattr(os, "nice"):
        os.nice(_NICE)
    gc.disable()  # such a short process needs no collection
    try:
        build(*pickle.load(sys.stdin.buffer), alone=True)
    except Exception as error:
        traceback.print_exc()
        sys.exit(f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}")


def _compile(work: Path, code: str, layouts: Sequence[Any], threads: int) -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    from pyrovae.compilation.products import register

    register()
    examples = [torch.empty_strided(s, t, dtype=kind) for s, t, kind in layouts]
    with torch.no_grad(), without_cuda_warning():
        from torch._inductor import aot_compile, config

        known = config.get_config_copy()
        options = {key: value for key, value in _OPTIONS.items() if key in known}
        options |= {"cpp.threads": threads, "aot_inductor.output_path": str(work / "graph.so")}
        module = make_fx(_function(code), tracing_mode="fake")(*examples)
        found = aot_compile(module, tuple(examples), options=options)
    if Path(str(found)) != work / "graph.so":
        raise RuntimeError(f"the compiler put the library at {found}")


def _function(code: str) -> Callable[..., Any]:
    """The function that such code defines. It refers to operators of torch and to nothing else."""
    scope: dict[str, Any] = {"torch": torch, "device": torch.device, "pytree": pytree}
    scope |= {"fx_pytree": fx_pytree, "inf": math.inf, "nan": math.nan, "NoneType": type(None)}
    exec(code, scope)
    return functools.partial(scope["forward"], None)


def _load_apart(path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", _LOAD, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(
            f"a process that loads the library ends with {done.returncode} {' '.join(said)}"
        )


def _compiler() -> str:
    """A few letters that change with torch and with the compiler."""
    from torch._inductor import cpp_builder

    name = shutil.which(cpp_builder.get_cpp_compiler()) or ""
    command = [name, "--version"]
    version = subprocess.run(command, capture_output=True, check=False).stdout if name else b""
    known = f"{torch.__version__} {name} ".encode() + version
    return hashlib.sha256(known).hexdigest()[:12]


@contextmanager
def without_cuda_warning() -> Iterator[None]:
    """Torch warns of a CUDA toolkit on a machine without a GPU when it first
    compiles, for CPU too.
    """
    logger = logging.getLogger("torch.utils.cpp_extension")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _fresh_cache(parent: str) -> Iterator[None]:
    """The compiler's own cache is a new folder."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    os.environ[name] = str(Path(parent) / "cache")
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
