"""What README.md shows works, and names everything there is; so do the commands of the page on the command line."""

import re
import shlex
from pathlib import Path

import pytest

from pyrovae import catalog
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
def test_commands_parse(command, tmp_path):
    if "--config" in command:
        config = tmp_path / "config.toml"
        config.write_text('latent_dim = 40\n[prior]\nname = "vamp"\nnum_components = 500\n')
        command[command.index("--config") + 1] = str(config)
    given = parse(command)
    assert type(given).__name__.lower() == command[0]


@pytest.mark.parametrize("kind", catalog.KINDS)
def test_every_part_is_in_the_tables(kind):
    for entry in catalog.everything(kind).values():
        missing = f"README.md does not name {entry.qualname} ({kind}): run `python docs/tables.py`"
        assert f"| `{entry.qualname}` |" in README, missing
