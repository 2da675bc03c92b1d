"""A run folder or a configuration from a stranger runs no code unless it is trusted."""

import sys

import pytest
from helpers.runs import TINY, call, files_with_classes, forget_files

import pyrovae as pv
from pyrovae.runs import Config, Run

# A file that tells when it is imported.
SPY = """
from pathlib import Path

Path({mark!r}).write_text("ran")

import pyro.distributions as dist
import torch
from pyrovae.priors import Prior


class Mine(Prior):
    def build(self):
        self.register_buffer("zeros", torch.zeros(self.latent_dim))

    def forward(self):
        return dist.Normal(self.zeros, 1.0).to_event(1)
"""

COLUMNS = (
    "likelihood: {{{{class_path: pyrovae.likelihoods.Columns, init_args: {{{{columns: "
    "{{{{{columns}}}}}, categories: {{{{x: [{values}]}}}}}}}}}}}}"
)
HOSTILE = {
    "a file": "prior: {folder}/spy.py:Mine",
    "a file beside the configuration": "prior: spy.py:Mine",
    "a file, in full": "prior: {{class_path: spy.py:Mine}}",
    "a module": "prior: spy.Mine",
    "a module, in full": "prior: {{class_path: spy.Mine, init_args: {{}}}}",
    "a package within": "prior: xml.spy.Mine",
    "an argument": "encoder: {{class_path: Log1p, init_args: {{net: spy.Mine}}}}",
    "an argument, in full": (
        "encoder: {{class_path: Log1p, init_args: {{net: {{class_path: spy.Mine}}}}}}"
    ),
    "arguments by another name": (
        "prior: {{class_path: Vamp, dict_kwargs: {{start: {{class_path: os.system}}}}}}"
    ),
    "a list": "estimator: {{class_path: ELBO, init_args: {{num_particles: [spy.Mine]}}}}",
    "a key": "prior: {{class_path: Vamp, init_args: {{spy.Mine: 1}}}}",
    "text that is YAML": "prior: '{{class_path: spy.Mine}}'",
    "text in text": "prior: \"'{{class_path: spy.Mine}}'\"",
    "a field that is no class": "data: spy.py:Mine",
    "a number": "latent_dim: '{{class_path: spy.py:Mine}}'",
    "a file of the parser's": "model: other",
    "the standard library": "prior: collections.OrderedDict",
    "a function": "prior: os.system",
    "torch": "encoder: torch.nn.Linear",
    "through the package": "prior: pyrovae.runs.run.json.JSONDecoder",
    "the package's own that is no part": "prior: pyrovae.runs.Run",
    "a column": COLUMNS.format(columns="x: spy.Mine", values="u, v"),
    "a category": COLUMNS.format(columns="x: Bernoulli", values="'spy.py:Mine', v"),
    "a category that is YAML": COLUMNS.format(columns="x: Bernoulli", values="'[spy.py:Mine]', v"),
}


@pytest.fixture
def spy(tmp_path, monkeypatch):
    """A folder with ``spy.py`` on the path, and what tells whether it was imported."""
    mark = tmp_path / "mark"
    folder = tmp_path / "stranger"
    folder.mkdir()
    (folder / "spy.py").write_text(SPY.format(mark=str(mark)))
    (folder / "other").write_text("class_path: spy.Mine\n")
    monkeypatch.syspath_prepend(folder)
    forget_files()
    yield folder, mark
    sys.modules.pop("spy", None)


@pytest.mark.parametrize("case", HOSTILE)
def test_a_configuration_of_a_stranger_runs_nothing(case, spy, monkeypatch, capsys):
    folder, mark = spy
    monkeypatch.chdir(folder)
    config = folder / "config.yaml"
    config.write_text(HOSTILE[case].format(folder=folder) + "\n")
    with pytest.raises(ValueError, match="names code that is not pyrovae's own"):
        Config.load(config)
    with pytest.raises(ValueError, match="not pyrovae's own"):
        pv.load_run(folder)
    every = ("sample .", "evaluate .", "estimators .", "compare . ..", "train --resume .")
    for words in ("train --config config.yaml", *(every if case == "a file" else ())):
        assert call(words) in (1, 2)
        (line,) = capsys.readouterr().err.splitlines()
        assert "not pyrovae's own" in line
        assert "--trust" in line
    assert not mark.exists()
    assert "spy" not in sys.modules
    assert not files_with_classes()


def test_endless_configurations_are_refused(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    (tmp_path / "c.yaml").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="far too long"):
        Config.load(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text("prior: " + "[" * 200 + "]" * 200)
    with pytest.raises(ValueError, match=r"too deep|cannot be read|not a YAML"):
        Config.load(tmp_path / "c.yaml")


def test_what_is_trusted_runs(spy, tmp_path, capsys):
    """What was typed on this very command line, and what --trust allows."""
    folder, mark = spy
    run = tmp_path / "run"
    assert call("train", TINY, f"--prior {folder}/spy.py:Mine", "--out", run) == 0
    assert mark.exists()
    forget_files()
    capsys.readouterr()
    assert call("sample", run, "--out", tmp_path / "x.npy") == 1
    line = capsys.readouterr().err
    assert "the class Mine of the file spy.py, as prior" in line
    with pytest.raises(ValueError, match="trust=True"):
        pv.load_run(run)
    assert call("sample", run, "--trust --out", tmp_path / "x.npy") == 0
    assert type(pv.load_run(run, trust=True).prior).__name__ == "Mine"
    # Loaded once, the class is no new code.
    assert type(pv.load_run(run).prior).__name__ == "Mine"
    assert Run.open(run).resume_command == f"pyrovae train --resume {run} --trust"


def test_the_packages_own_parts_need_no_trust(tmp_path):
    declared = Config(
        prior="Vamp",
        encoder={"class_path": "Log1p", "init_args": {"net": {"class_path": "Conv"}}},
        beta={"class_path": "pyrovae.schedules.Linear", "init_args": {"steps": 9}},
        estimator={"class_path": "FreeBits", "init_args": {"estimator": "STL"}},
        data="my.data.npy",
    )
    declared.save(tmp_path / "c.yaml")
    assert Config.load(tmp_path / "c.yaml") == declared
    (tmp_path / "bom.yaml").write_text("\ufeffprior: Vamp\n", encoding="utf-8")
    assert Config.load(tmp_path / "bom.yaml") == Config(prior="Vamp")
