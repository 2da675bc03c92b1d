"""Help: fast where it can be, complete, and about the classes that there are."""

import importlib
import inspect
import re
import subprocess
import sys

import pytest
from docstring_parser import parse

import pyrovae as pv
from pyrovae.cli import COMMANDS, main
from pyrovae.runs import Config
from pyrovae.runs.declared import CLASSES, class_of
from pyrovae.runs.messages import class_names

FAMILIES = {
    "model": ["models"],
    "prior": ["priors", "posteriors"],
    "likelihood": ["likelihoods"],
    "posterior": ["posteriors"],
    "encoder": ["nets"],
    "estimator": ["estimators"],
    "beta": ["schedules"],
    "method": ["evidence"],
}


def concrete(field):
    """The classes that a field can declare, by import."""
    kinds = list(CLASSES[field].__args__) if hasattr(CLASSES[field], "__args__") else []
    bases = tuple(k for k in (kinds or [CLASSES[field]]) if k not in (float, type(None)))
    modules = [importlib.import_module(f"pyrovae.{name}") for name in FAMILIES[field]]
    return {
        (module.__name__, name)
        for module in modules
        for name in module.__all__
        if inspect.isclass(thing := getattr(module, name))
        and issubclass(thing, bases)
        and thing not in bases
        and not inspect.isabstract(thing)
    }


def test_help_needs_no_torch():
    code = "import sys; from pyrovae.cli import main"
    code += "; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    for arguments in (["--help"], [], ["--version"], ["trian"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
        )
        expected = "2 False" if arguments == ["trian"] else "0 False"
        assert done.stdout.splitlines()[-1] == expected, done.stdout[-300:]


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", shown, re.MULTILINE)
        assert main([name, "--help"]) == 0
        assert COMMANDS[name] in re.sub(r"\s+", " ", capsys.readouterr().out)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == pv.__version__


def test_help_names_every_class(capsys):
    assert main(["train", "--help"]) == 0
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    for field in FAMILIES:
        assert f"--{field} " in shown
        for _, name in concrete(field):
            assert re.search(rf"\b{name}\b", shown), name


def test_help_of_a_class(capsys):
    assert main(["train", "--prior.help", "Vamp"]) == 0
    assert "--prior.num_components" in capsys.readouterr().out


@pytest.mark.parametrize("field", FAMILIES)
def test_every_exported_class_is_found(field):
    assert set(class_names(CLASSES[field])) == {name for _, name in concrete(field)}


@pytest.mark.parametrize("field", FAMILIES)
def test_every_class_and_argument_is_described(field):
    for module, name in concrete(field):
        cls = getattr(importlib.import_module(module), name)
        documents = [parse(inspect.getdoc(c) or "") for c in cls.__mro__ if c is not object]
        assert documents[0].short_description, name
        described = {word.strip(" *") for doc in documents for p in doc.params
                     for word in p.arg_name.split(",")}  # fmt: skip
        silent = set(inspect.signature(cls).parameters) - described
        assert not silent, f"{name} does not describe {silent} under Args"


@pytest.mark.parametrize("field", FAMILIES)
def test_classes_build_with_their_defaults(field):
    for module, name in concrete(field):
        cls = getattr(importlib.import_module(module), name)
        required = [
            p
            for p in inspect.signature(cls).parameters.values()
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        if field == "model" or required or name == "Columns":  # its columns are those of the data
            continue
        config = Config(**{field: f"{module}.{name}"})
        assert class_of(getattr(config, field)) is cls
        assert type(config.build(field)) is cls


def test_every_field_of_the_configuration_is_described():
    described = {p.arg_name for p in parse(inspect.getdoc(Config) or "").params}
    assert set(inspect.signature(Config).parameters) == described
