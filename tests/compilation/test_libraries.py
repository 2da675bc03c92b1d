"""Compiled graphs on disk: built once, found again, rebuilt when damaged; and the fixed switch."""

import contextlib
import os
import shutil
import subprocess
import sys
import warnings
from typing import Any

import pytest
import torch

from pyrovae.compilation import Graph, capture, compile, inductor, products
from pyrovae.compilation.libraries import Library, folder
from pyrovae.compilation.library_build import is_complete

X = torch.linspace(-1, 1, 12).reshape(4, 3)


@pytest.fixture(autouse=True)
def own_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("PYROVAE_CACHE", str(tmp_path / "cache"))


def graph_of(function, *inputs) -> Graph:
    return capture(lambda *x: (function(*x),), inputs)


def test_a_library_is_named_by_all_that_decides_what_it_holds(monkeypatch):
    name = Library(graph_of(torch.exp, X), [X]).name
    assert Library(graph_of(torch.exp, X + 1), [X + 1]).name == name
    others = {
        Library(graph_of(torch.sin, X), [X]).name,
        Library(graph_of(torch.exp, X[:2]), [X[:2]]).name,
        Library(graph_of(torch.exp, X.double()), [X.double()]).name,
        Library(graph_of(torch.exp, X.t()), [X.t()]).name,
    }
    monkeypatch.setenv("CXX", "another")
    others.add(Library(graph_of(torch.exp, X), [X]).name)
    monkeypatch.delenv("CXX")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    others.add(Library(graph_of(torch.exp, X), [X]).name)
    assert len(others - {name}) == 6


def test_what_shares_memory_with_a_changed_tensor_is_no_library():
    base = torch.zeros(8)
    left, right = base[:4], base[2:6]

    def function(x):
        left.add_(x)
        return left + right

    with pytest.raises(RuntimeError, match="shares memory"):
        Library(graph_of(function, torch.ones(4)), [torch.ones(4)])


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="files have no owner here")
def test_the_folder_of_another_user_is_refused(monkeypatch):
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    with pytest.raises(RuntimeError, match="belongs to another user"):
        Library(graph_of(torch.exp, X), [X])


def test_the_switch_is_a_rule_of_the_graph_and_the_steps():
    graph = graph_of(lambda x: (x.exp() @ x.t()).sum(), X)
    assert inductor.switch_after(graph, None) is None
    assert inductor.switch_after(graph, 1000) is None
    first = inductor.switch_after(graph, 10**9)
    assert inductor.switch_after(graph, 10**8) == first
    wide = torch.ones(4000, 300)
    larger = inductor.switch_after(graph_of(lambda x: (x.exp() @ x.t()).sum(), wide), 10**9)
    assert 0 < larger < first


class Recorded:
    """Stands in for a library, and for the compiler where it is not begun."""

    def __init__(self, monkeypatch, after: int):
        self.events: list[str] = []
        monkeypatch.setattr(inductor, "has_compiler", lambda device: True)
        monkeypatch.setattr(inductor, "switch_after", lambda graph, calls: after)
        monkeypatch.setattr(inductor, "begin", lambda *_: self.events.append("begin"))
        monkeypatch.setattr(inductor, "compile_graph", self.compile)

    def compile(self, graph, inputs, built=None):
        self.events.append("switch")
        graph.kind = "compiled"
        return 0.0


def test_calls_go_on_captured_up_to_the_switch(monkeypatch):
    recorded = Recorded(monkeypatch, after=3)
    compiled = compile(lambda x: x * 2, calls=10)
    kinds = []
    for _ in range(5):
        assert torch.equal(compiled(X), 2 * X)
        kinds.append(compiled.graphs[0].kind)
    assert kinds == ["captured"] * 3 + ["compiled"] * 2
    assert recorded.events == ["begin", "switch"]


def test_a_resumed_run_switches_where_it_would_have(monkeypatch):
    recorded = Recorded(monkeypatch, after=3)
    compiled = compile(lambda x: x * 2, calls=10)
    compiled.resume(2)
    compiled(X)
    assert compiled.graphs[0].kind == "captured"
    compiled(X)
    assert compiled.graphs[0].kind == "compiled"
    late = compile(lambda x: x * 2, calls=10)
    late.resume(7)
    late(X)
    assert late.graphs[0].kind == "compiled"
    assert recorded.events == ["begin", "switch", "switch"]


def test_a_prepared_graph_is_built_for_the_threads_of_a_called_one(monkeypatch):
    """Another number of threads is another library, whose sums differ in the last digits."""
    Recorded(monkeypatch, after=3)
    used, before = [], torch.get_num_threads()
    monkeypatch.setattr(inductor, "begin", lambda *_: used.append(torch.get_num_threads()))
    torch.set_num_threads(3)
    try:
        compile(lambda x: x * 2, calls=10).prepare(X)
        called = compile(lambda x: x * 2, calls=10)
        with called.guarded():
            called(X)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert used == [1, 1]


def test_one_graph_is_compiled_for_each_kind_of_arguments(monkeypatch):
    """The first one, such as that of a whole batch, whatever values and shapes come after it."""
    Recorded(monkeypatch, after=6)
    compiled = compile(lambda scale, num, x: x * 2, calls=100)
    for _ in range(4):
        for num in (3, 2):
            compiled(None, num, X[:num])
    assert [graph.kind for graph in compiled.graphs] == ["compiled", "captured"]
    compiled(torch.ones(()), 3, X)
    compiled(torch.ones(()), 2, X)
    kinds = [graph.kind for graph in compiled.graphs]
    assert kinds == ["compiled", "captured", "compiled", "captured"]


def test_a_failed_build_leaves_the_captured_graph(monkeypatch):
    Recorded(monkeypatch, after=1)

    def fail(*_):
        raise RuntimeError("no space left")

    monkeypatch.setattr(inductor, "compile_graph", fail)
    compiled = compile(lambda x: x * 2, calls=10)
    compiled(X)
    with pytest.warns(UserWarning, match="Inductor failed with RuntimeError.*no space left"):
        compiled(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(compiled(X), 2 * X)


def test_small_graphs_run_on_one_thread_inside_a_guard(monkeypatch):
    used, threads = [], [4]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda n: threads.__setitem__(0, n))

    def function(x):
        used.append(threads[0])
        return x * 2

    small, large = compile(function, backend=False), compile(function, backend=False)
    monkeypatch.setattr(inductor, "ONE_THREAD", 1e-3)
    for _ in range(2):
        with small.guarded():
            small(X)
            assert threads == [1]
        assert threads == [4]
    with large.guarded():
        large(torch.ones(4000, 3000))  # 48 MB are written
        assert threads == [4]
    small(X)
    assert threads == [4]


@pytest.mark.slow
def test_built_beside_the_calls_found_again_and_rebuilt_when_damaged(monkeypatch):
    """Three processes' worth: build in another process, load, damage, load again."""
    weight = torch.full((3,), 2.0)

    def function(x):
        weight.add_(1)
        return (x * weight + torch.randn_like(x)).exp(), x.sum()

    monkeypatch.setattr(inductor, "switch_after", lambda graph, calls: 2)
    expected, found = [], []
    for run, results in ((function, expected), (compile(function, calls=10), found)):
        weight.fill_(2.0)
        torch.manual_seed(0)
        results += [run(X) for _ in range(5)]
    torch.testing.assert_close(found, expected)
    [path] = [path for path in folder().iterdir() if path.is_dir()]
    assert is_complete(path)
    library, part = path / "graph.so", path / "part"
    part.write_bytes(library.read_bytes()[:1000])  # apart: the library itself is in use
    for damage in (lambda: part.replace(library), library.unlink):
        damage()
        assert not is_complete(path)
        again = compile(function, calls=10)
        weight.fill_(2.0)
        torch.manual_seed(0)
        torch.testing.assert_close([again(X) for _ in range(5)], expected)
        assert is_complete(path)


@pytest.mark.slow
@pytest.mark.parametrize("background", [True, False])
def test_a_library_that_ends_a_process_is_never_loaded_in_this_one(
    monkeypatch, tmp_path, background
):
    (tmp_path / "crash.cpp").write_text(
        "#include <cstdlib>\n__attribute__((constructor)) static void f() { abort(); }\n"
    )
    compiler = tmp_path / "compiler"
    real = shutil.which(os.environ.get("CXX", "g++"))
    compiler.write_text(
        f'#!/bin/sh\nfor a in "$@"; do case "$a" in *graph.so) more={tmp_path}/crash.cpp;; esac; '
        f'done\nexec {real} "$@" $more\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    patched: Any = contextlib.nullcontext()
    if not background:  # torch reads the variable when its compiler is imported
        from torch._inductor import config

        patched = config.patch({"cpp.cxx": (None, str(compiler))})
    monkeypatch.setattr(inductor, "switch_after", lambda graph, calls: 2)
    instead = []
    monkeypatch.setattr(
        inductor, "_within_this_process", lambda graph, _: instead.append(graph) or graph.module
    )
    compiled = compile(
        lambda x: (x * 3).exp(),
        calls=10,
        background=background,
        backend="auto" if background else True,
    )
    with patched:
        for _ in range(4):
            torch.testing.assert_close(compiled(X), (X * 3).exp())
    assert len(instead) == 1
    assert not [path for path in folder().iterdir() if is_complete(path)]


@pytest.mark.slow
@pytest.mark.skipif(not products._available(), reason="this torch has no oneDNN")
def test_a_library_with_products_of_onednn_is_loaded_by_another_process_too(monkeypatch):
    """That process has to know the operators that the library calls."""
    monkeypatch.setattr(products, "_pays", lambda: True)
    monkeypatch.setattr(products, "FEWEST_MULTIPLICATIONS", 1)
    x, weight, bias = torch.randn(8, 6), torch.randn(5, 6), torch.randn(5)

    def function(x):
        hidden = torch.addmm(bias, x, weight.t()).relu()
        return hidden @ weight + 1

    compiled = compile(function, backend=True)
    torch.testing.assert_close(compiled(x), function(x))
    [graph] = compiled.graphs
    assert graph.kind == "compiled"
    assert [*folder().glob("loads-*")]  # what a process that loaded it has left
    [path] = [path for path in folder().iterdir() if path.is_dir()]
    assert b"onednn" in (path / "graph.json").read_bytes()


@pytest.mark.slow
def test_a_parameter_of_another_layout_is_compiled_anew():
    """The library reads memory by the layouts it was built for."""
    parameter = torch.nn.Parameter(torch.ones(4, 3))
    settings = ([parameter],)
    compiled = compile(lambda x: (x * parameter).sum(), settings=settings, backend=True)
    assert compiled(X) == pytest.approx(X.sum().item(), abs=1e-6)
    parameter.data = torch.full((3, 4), 2.0).t()
    assert compiled(X) == pytest.approx(2 * X.sum().item(), abs=1e-6)
    parameter.data = torch.full((1, 3), 3.0)
    assert compiled(X) == pytest.approx(3 * X.sum().item(), abs=1e-6)


@pytest.mark.slow
def test_compiling_says_nothing_of_cuda(tmp_path):
    code = (
        "import torch\nfrom pyrovae.compilation import compile\n"
        "f = compile(lambda x: x.exp() + 1, backend=True)\nf(torch.ones(300))\n"
        "assert f.graphs[0].kind == 'compiled'\n"
        "g = compile(lambda x: x.exp() + 2, backend=True)\n"
        "import pyrovae.compilation.inductor as inductor\n"
        "inductor._library = lambda *_: None\ng(torch.ones(300))\n"
        "assert g.graphs[0].kind == 'compiled'\n"
    )
    environment = {
        **os.environ,
        "CUDA_HOME": "/usr/local",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "CUDA" not in done.stderr
