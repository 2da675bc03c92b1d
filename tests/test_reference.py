"""Public names of docs/api show how they are used, and every estimator has its reason."""

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

from pyrovae import estimators

DOCS = Path(__file__).parents[1] / "docs"

WITHOUT_EXAMPLE = {
    "errors: their messages explain them": {
        "particles.InvalidParameters",
        "particles.NestedPlates",
        "compilation.Uncapturable",
    },
    "results that the functions of their module make, for the code above them": {
        "particles.LatentSite",
        "particles.SummedParticles",
        "particles.SummedSites",
        "objective.Evaluation",
        "compilation.Graph",
        "programs.Met",
    },
    "objectives: users call objective.objective": {
        "objective.Objective",
        "objective.StockObjective",
    },
    "machinery of estimators and evidence": {
        "particles.check_right_most",
        "particles.draw_encoded",
        "particles.draw_latent",
        "particles.draw_prior",
        "particles.draw_summed",
        "particles.encoded_normal",
        "particles.find_supports",
        "particles.guide_log_prob",
        "particles.is_point",
        "particles.nesting_of",
        "particles.over_plates",
        "particles.real_support",
        "particles.runs_separately",
        "particles.score_values_summed",
        "particles.settle",
    },
    "machinery of training": {
        "compilation.pays_back",
        "programs.alone",
        "programs.before_calls",
        "programs.floating_parameter",
        "programs.is_stale",
        "programs.meet",
        "programs.store_as_found",
        "programs.stored_parameters",
        "programs.undisturbed",
        "programs.unwrapped",
    },
}
EXCEPTIONS = set().union(*WITHOUT_EXAMPLE.values())


def public():
    """Classes and functions by ``module.name``, as the pages list them."""
    found = {}
    for page in (DOCS / "api").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for module in re.findall(r"automodule:: pyrovae\.(\S+)", text):
            loaded = import_module(f"pyrovae.{module}")
            found |= {f"{module}.{name}": getattr(loaded, name) for name in loaded.__all__}
        for name in re.findall(r"auto(?:class|function):: pyrovae\.(\S+)", text):
            module, _, attribute = name.rpartition(".")
            found[name] = getattr(import_module(f"pyrovae.{module}"), attribute)
    return {k: v for k, v in found.items() if inspect.isclass(v) or inspect.isfunction(v)}


def example(thing):
    """What the docstring shows: its code, or the name of the function that it refers to."""
    text = inspect.cleandoc(thing.__doc__ or "")
    code = re.findall(r"^\s*>>> .*", text, re.MULTILINE)
    return "\n".join(code) or re.search(r"^Example:\n +See :\w+:`~?([\w.]+)`", text, re.MULTILINE)


@pytest.mark.parametrize(("name", "thing"), public().items(), ids=public())
def test_public_name_has_an_example(name, thing):
    assert name in EXCEPTIONS or example(thing), f"{name} has no example in its docstring"


def test_exceptions_are_public_names_without_an_example():
    names = public()
    assert EXCEPTIONS - names.keys() == set()
    assert [name for name in EXCEPTIONS if example(names[name])] == []


def test_whatever_an_example_refers_to_has_code():
    names = public()
    for name, thing in names.items():
        found = None if name in EXCEPTIONS else example(thing)
        if isinstance(found, re.Match):
            last = found[1].rpartition(".")[2]
            meant = {names[key] for key in names if key.rpartition(".")[2] == last}
            assert meant, f"{name} refers to {found[1]}, which is not public"
            assert all(isinstance(example(thing), str) for thing in meant), found[1]


def test_the_mathematics_says_why_each_estimator_exists():
    text = (DOCS / "mathematics.md").read_text(encoding="utf-8")
    names = set(estimators.__all__) - {"Estimator", "Terms"}
    assert [n for n in sorted(names) if f"{{class}}`~pyrovae.estimators.{n}`" not in text] == []
