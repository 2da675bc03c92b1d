"""Files of a library are compiled beside each other, and instructions are asked for, not tried."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from pyrovae.compilation import compiler_runs
from pyrovae.compilation.inductor import has_compiler


def test_calls_and_kernels_are_compiled_at_the_same_time_and_linked_afterwards():
    began, log = threading.Event(), []

    def build(self):
        if self._name == "a.wrapper":
            assert began.wait(60)  # the other file: one after the other, this would time out
        elif self._name == "a.kernel":
            began.set()
        log.append(self._name)

    with ThreadPoolExecutor(1) as pool:
        begin = compiler_runs._beside(build, pool)
        for name in ("a.wrapper", "a.kernel", "a"):
            begin(SimpleNamespace(_name=name))
    assert log[-1] == "a"
    assert sorted(log[:2]) == ["a.kernel", "a.wrapper"]


def test_a_file_that_does_not_compile_ends_the_build_before_linking():
    log = []

    def build(self):
        if self._name == "a.wrapper":
            raise RuntimeError("a syntax error")
        log.append(self._name)

    with ThreadPoolExecutor(1) as pool:
        begin = compiler_runs._beside(build, pool)
        begin(SimpleNamespace(_name="a.wrapper"))
        begin(SimpleNamespace(_name="a.kernel"))
        with pytest.raises(RuntimeError, match="a syntax error"):
            begin(SimpleNamespace(_name="a"))
    assert log == ["a.kernel"]


@pytest.mark.skipif(not has_compiler("cpu"), reason="no C++ compiler")
def test_the_compiler_is_asked_for_the_flags_of_instructions():
    from torch._inductor.cpp_builder import get_cpp_compiler

    knows = compiler_runs._knows(get_cpp_compiler)
    assert knows(SimpleNamespace(build_arch_flags=lambda: "-O1 -g"), "")
    assert not knows(SimpleNamespace(build_arch_flags=lambda: "-O1 -mno-such-instructions"), "")


def test_inductor_is_as_before_afterwards():
    from torch._inductor.cpp_builder import CppBuilder
    from torch._inductor.cpu_vec_isa import VecISA

    before = dict(CppBuilder.__dict__), dict(VecISA.__dict__)
    with compiler_runs.quick_compiler_runs():
        assert dict(CppBuilder.__dict__) != before[0]
    assert (dict(CppBuilder.__dict__), dict(VecISA.__dict__)) == before


def test_a_method_that_there_is_not_is_left_out():
    class Other:
        pass

    with compiler_runs._replaced(Other, "build", len):
        assert not hasattr(Other, "build")
