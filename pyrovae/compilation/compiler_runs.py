"""Fewer runs of the C++ compiler for a library, two of them at a time."""

import contextvars
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

__all__ = ["quick_compiler_runs"]


@contextmanager
def quick_compiler_runs() -> Iterator[None]:
    """Inside, Inductor builds a library as always, only sooner.

    By itself it compiles and loads a small file for each set of instructions that the processor
    has. Here the compiler is asked whether it knows them. And it compiles the kernels after the
    calls of them; here at the same time. A version of torch that builds in another way is left as
    it is.
    """
    from torch._inductor import cpp_builder, cpu_vec_isa

    with ExitStack() as stack:
        knows = _knows(cpp_builder.get_cpp_compiler)
        stack.enter_context(_replaced(cpu_vec_isa.VecISA, "check_build", knows))
        pool = stack.enter_context(ThreadPoolExecutor(1, "pyrovae-build"))
        build = getattr(cpp_builder.CppBuilder, "build", None)
        stack.enter_context(_replaced(cpp_builder.CppBuilder, "build", _beside(build, pool)))
        yield


def _knows(compiler: Any) -> Any:
    def knows(self: Any, code: str) -> bool:
        """Whether the compiler accepts the flags for some instructions."""
        flags = self.build_arch_flags().split()
        command = [compiler(), *flags, "-x", "c++", "-E", os.devnull]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    return knows


def _beside(build: Any, pool: ThreadPoolExecutor) -> Any:
    """A build that does not wait for the file of calls while it compiles that of kernels."""
    waiting: list[Future] = []

    def begin(self: Any) -> Any:
        name = str(getattr(self, "_name", ""))
        if name.endswith(".wrapper"):
            waiting.append(pool.submit(contextvars.copy_context().run, build, self))
            return None
        if not name.endswith(".kernel"):  # it may need all files before
            while waiting:
                waiting.pop().result()
        return build(self)

    return begin


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """A method of a class is another one inside, if there is such a method."""
    before = owner.__dict__.get(name)
    if before is None:
        yield
        return
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
