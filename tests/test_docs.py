"""Every Python block of the documentation, README.md and CONTRIBUTING.md runs as typed.

The blocks of a page run in order, in one namespace that is new for each page. A comment in the line
before a block changes that: ``<!-- no run: REASON -->`` leaves the block out, and
``<!-- slow: REASON -->`` leaves it to ``-m slow``.
"""

import ast
import inspect
import re
import runpy
import sys
import textwrap
import warnings
from importlib import import_module
from pathlib import Path

import pyro
import pytest
import torch

import pyrovae as pv

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
BLOCK = re.compile(
    r"^(?:[ ]*<!-- (?P<mark>no run|slow): (?P<reason>\S.*?) -->\n+)?"
    r"(?P<indent>[ ]*)```(?:python|\{code-cell\} ipython3)\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
SHORTER = {
    "README.md": [("epochs=200", "epochs=1"), ("num_particles=1_000", "num_particles=50")],
    "plots.md": [
        ("epochs=60", "epochs=1"),
        ("epochs=15", "epochs=1"),
        ("=300", "=30"),
        ("num_replicates=30", "num_replicates=4"),
    ],
}
"""What the quick test of a page changes; the slow one runs the page as typed."""


def blocks(page, slow):
    """Line and code of the blocks to run."""
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        if block["mark"] != "no run" and (slow or block["mark"] != "slow"):
            yield text.count("\n", 0, block.start("code")), block["code"]


def run_page(page, slow=False):
    """The names that a page has defined in the end."""
    names = {"__name__": page.stem}
    for line, code in blocks(page, slow):
        for old, new in [] if slow else SHORTER.get(page.name, []):
            code = code.replace(old, new)
        tree = ast.parse(textwrap.dedent(code), str(page))
        ast.increment_lineno(tree, line)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, str(page), "exec"), names)
        if last is not None:  # as a notebook shows it
            repr(eval(compile(ast.Expression(last.value), str(page), "eval"), names))
    return names


@pytest.fixture(autouse=True)
def _fresh(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pyro.clear_param_store()
    torch.manual_seed(0)
    yield
    pyro.clear_param_store()


def named(pages):
    return [pytest.param(page, id=page.name) for page in pages]


def check_models(names):
    assert names["codes"].shape == (64, 2)
    assert names["again"].shape == (64, 6)
    assert names["path"].shape == (5, 1, 6)
    assert names["z2"].batch_shape == (64,)
    assert len(names["deep"]) == len(names["given"]) == 64
    assert names["drawn"].shape == (3, 6)
    assert torch.allclose(names["shares"].sum(-1), torch.ones(64))


def check_likelihoods(names):
    assert names["evidence"].bits_per_dim > 0
    found = names["Exponential"]().in_support(torch.tensor([[1.0], [-1.0]]))
    assert found.tolist() == [True, False]


CHECKS = {"models.md": check_models, "likelihoods.md": check_likelihoods}


@pytest.mark.parametrize("page", named(page for page in PAGES if list(blocks(page, False))))
def test_page_runs(page):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pages show some
        names = run_page(page)
    CHECKS.get(page.name, lambda names: None)(names)


def is_longer(page):
    return page.name in SHORTER or len(list(blocks(page, True))) > len(list(blocks(page, False)))


@pytest.mark.slow
@pytest.mark.parametrize("page", named(filter(is_longer, PAGES)))
def test_page_runs_with_its_long_blocks(page):
    run_page(page, slow=True)


@pytest.mark.parametrize("page", named(PAGES))
def test_no_block_is_left_out_without_a_reason(page):
    """Every Python fence is found, and every comment that leaves one out has the right form."""
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r"```(?:python|\{code-cell\})", text)) == len(BLOCK.findall(text))
    marked = [block for block in BLOCK.finditer(text) if block["mark"]]
    assert len(re.findall(r"<!-- (?:no run|slow)", text)) == len(marked)


@pytest.mark.parametrize("page", named(PAGES))
def test_links_between_pages_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
    links += [f"{name}.md" for name in re.findall(r"\{doc\}`(?:[^`<]*<)?([\w/]+)>?`", text)]
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing, f"{page.name} links to {missing}"


def test_the_reference_lists_every_public_module():
    pages = "\n".join(path.read_text("utf-8") for path in (ROOT / "docs" / "api").glob("*.md"))
    listed = set(re.findall(r"automodule:: (pyrovae\.\w+)$", pages, re.MULTILINE))
    public = {f"pyrovae.{name}" for name in pv.__all__ if inspect.ismodule(getattr(pv, name))}
    assert public - listed == set()
    # What a module loads on first use is not found by automodule.
    for module in filter(lambda module: hasattr(module, "__getattr__"), map(import_module, public)):
        for name in module.__all__:
            assert re.search(rf"^\.\. auto\w+:: {module.__name__}\.{name}$", pages, re.MULTILINE)


def test_the_script_of_the_estimator_tables_runs(monkeypatch, capsys):
    script = ROOT / "docs" / "estimators.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--quick"])
    runpy.run_path(str(script), run_name="__main__")
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if "|" in line]
    page = (ROOT / "docs" / "choosing_an_estimator.md").read_text(encoding="utf-8")
    names = {row[1].strip() for row in rows} - {"", "---"}
    assert len(names) > 10
    assert all(page.count(f"\n| {name} | ") for name in names)


def test_every_test_that_the_page_on_reliability_names_is_there():
    """With its mark: *slow* where the whole test is slow."""
    path, found = None, 0
    for line in (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8").splitlines():
        cells = line.split(" | ")
        for file, name, slow in NAMED_TEST.findall(cells[2] if len(cells) == 4 else ""):
            path = ROOT / "tests" / file if file else path
            assert path is not None
            assert path.is_file(), path
            tests = {f.name: f for f in ast.parse(path.read_text()).body if hasattr(f, "args")}
            if name:
                marks = [ast.unparse(mark) for mark in tests[name].decorator_list]
                assert ("pytest.mark.slow" in marks) == bool(slow), name
            found += 1
    assert found > 40


NAMED_TEST = re.compile(r"`([\w/]*\.py|)(?:::(\w+))?`(?: \((slow)\))?")
