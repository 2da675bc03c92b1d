"""What README.md shows works, and names everything there is; so do the commands of the page on the
command line.
"""

import importlib
import importlib.util
import re
import shlex
import tomllib
from pathlib import Path

import pytest

import pyrovae as pv
from pyrovae.cli import COMMANDS
from pyrovae.cli.parse import parse

ROOT = Path(__file__).parents[1]


def blocks_of(text):
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = blocks_of(README)
PAGE = blocks_of((ROOT / "docs" / "command_line.md").read_text(encoding="utf-8"))


def test_quick_start_has_two_shell_blocks_before_any_other():
    assert [language for language, _ in BLOCKS[:2]] == ["sh", "sh"]
    quick = README.split("## Quick start")[1].split("\n## ")[0]
    assert quick.count("```sh\n") == 2
    assert BLOCKS[0][1].rstrip().endswith("pyrovae train")
    assert "pytest" in BLOCKS[1][1]


def test_the_page_of_a_package_index_leads_nowhere_that_is_not_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    hook, page = project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"], README
    for change in hook["substitutions"]:
        assert re.search(change["pattern"], page), change
        page = re.sub(change["pattern"], change["replacement"], page)
    assert re.findall(r"\]\((?!https://)", README)
    assert not re.findall(r"\]\((?!https://)", page)
    assert ".venv/bin/pip install 'pyrovae[plots]'" in page
    assert len(page) > 0.7 * len(README)


def test_python_blocks_run(capsys):
    python = "\n".join(text for language, text in BLOCKS if language == "python")
    shorter = python.replace("epochs=200", "epochs=1").replace("5_000", "50")
    assert shorter != python
    scope: dict = {}
    exec(compile(shorter, "README.md", "exec"), scope)
    assert "Evidence of 300 data" in capsys.readouterr().out


def commands():
    shell = "\n".join(text for language, text in [*BLOCKS, *PAGE] if language == "sh").replace(
        "\\\n", " "
    )
    return [
        words[1:]
        for words in map(shlex.split, shell.splitlines())
        if words and words[0] == "pyrovae"
    ]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_commands_parse(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "from pyrovae.priors import StandardNormal\n\n\nclass Mine(StandardNormal): pass\n"
    (tmp_path / "mine.py").write_text(text)
    if "--config" in command:
        config = tmp_path / "config.yaml"
        config.write_text("latent_dim: 40\nprior: Vamp\n")
        command[command.index("--config") + 1] = str(config)
    assert command[0] in COMMANDS
    function, _ = parse(command[0], command[1:])
    assert function.__name__ == command[0]


def test_the_configuration_of_the_page_is_one(tmp_path):
    (text,) = [text for language, text in PAGE if language == "yaml"]
    (tmp_path / "config.yaml").write_text(text)
    config = pv.Config.load(tmp_path / "config.yaml")
    assert config.data == "mnist"
    assert repr(config.build("prior")) == "Vamp()"
    assert repr(config.build("encoder")) == "Log1p(net=MLP(128))"


def tables():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CATALOGUE = (ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("heading", tables().FAMILIES)
def test_every_class_is_in_the_catalogue(heading):
    section = CATALOGUE.split(f"## {heading}\n")[1].split("\n## ")[0]
    assert tables().variants(*tables().FAMILIES[heading])
    for cls in tables().variants(*tables().FAMILIES[heading]):
        missing = f"the catalogue lacks {cls.__name__}: run `python docs/tables.py`"
        assert tables().row(cls) in section, missing


def test_readme_names_every_family_and_real_classes():
    rows = re.findall(r"^\| .* \| `(pyrovae\.\w+)` \| (.*) \|$", README, re.MULTILINE)
    assert [module for module, _ in rows] == [module for module, _ in tables().FAMILIES.values()]
    for module, names in rows:
        for name in re.findall(r"`(\w+)`", names):
            assert hasattr(importlib.import_module(module), name), name
