"""What a sweep's file declares."""

import re
from pathlib import Path

import pytest
import yaml

import pyrovae as pv
from pyrovae.cli.parse import parse
from pyrovae.runs.sweeps.axes import Range
from pyrovae.runs.sweeps.declaration import Declaration

VAMP = {"class_path": "Vamp", "init_args": {"num_components": 50}}


def test_a_grid_has_every_combination_once():
    sweep = Declaration.of(
        {"data": "digits", "prior": ["StandardNormal", VAMP], "latent_dim": [8, 16], "seed": 3}
    )
    assert sweep.fixed == {"data": "digits"}
    assert sweep.seeds == (0, 1, 2)
    assert sweep.grid() == [
        {"prior": prior, "latent_dim": latent_dim}
        for prior in ("StandardNormal", "Vamp(num_components=50)")
        for latent_dim in (8, 16)
    ]
    config = sweep.config({"prior": "Vamp(num_components=50)", "latent_dim": 16}, 2)
    assert config == pv.Config(prior=VAMP, latent_dim=16, seed=2)


def test_a_list_of_seeds_is_itself_and_none_is_one():
    assert Declaration.of({"seed": [3, 7]}).seeds == (3, 7)
    assert Declaration.of({"lr": [0.1, 0.2]}).seeds == (0,)
    assert Declaration.of({}).grid() == [{}]


def test_options_with_dots_belong_to_a_class():
    sweep = Declaration.of(
        {
            "prior": "Vamp",
            "prior.num_components": [5, 50],
            "encoder": {"class_path": "Log1p", "init_args": {"net": "MLP"}},
            "encoder.net.hidden": [[8], [16, 16]],
        }
    )
    found = sweep.config({"prior.num_components": 5, "encoder.net.hidden": "[16, 16]"}, 0)
    assert repr(found.build("prior")) == "Vamp(num_components=5)"
    assert repr(found.build("encoder")) == "Log1p(net=MLP(16, 16))"
    assert sweep.grid()[0] == {"prior.num_components": 5, "encoder.net.hidden": "[8]"}
    with pytest.raises(ValueError, match=r"prior\.num_components belongs to a class: give prior"):
        Declaration.of({"prior.num_components": [5]}).config({"prior.num_components": 5}, 0)


def test_a_pair_is_one_value_of_a_list():
    sweep = Declaration.of({"model": "HierarchicalVAE", "latent_dim": [[8, 4], 6]})
    assert sweep.config({"latent_dim": "[8, 4]"}, 0).latent_dim == (8, 4)
    assert sweep.config({"latent_dim": 6}, 0).latent_dim == 6


@pytest.mark.parametrize(
    "text",
    [
        "prior: [StandardNormal, 'mine.py:Mine']",
        "prior: [{class_path: 'mine.py:Mine'}]",
        "prior.base: ['mine.py:Mine', Vamp]",
        "encoder.net: [mine.Mine]",
        "config: base.yaml",
    ],
)
def test_a_file_of_a_stranger_runs_no_code(tmp_path, monkeypatch, text):
    code = "from pathlib import Path\nPath('ran').touch()\nclass Mine: pass\n"
    (tmp_path / "mine.py").write_text(code)
    (tmp_path / "base.yaml").write_text("prior: mine.py:Mine\n")
    (tmp_path / "sweep.yaml").write_text(f"{text}\nlatent_dim: [2, 3]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match="give --trust, or trust=True"):
        pv.sweep("sweep.yaml", "out")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()


def test_a_base_configuration_and_files_of_classes(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("from pyrovae import priors\nMine = priors.StandardNormal\n")
    pv.Config(epochs=7, model="HierarchicalVAE", latent_dim=(5, 3)).save(tmp_path / "base.yaml")
    file = tmp_path / "sweep.yaml"
    file.write_text("config: base.yaml\nprior: [StandardNormal, 'mine.py:Mine']\nseed: 2\n")
    monkeypatch.chdir("/")
    sweep = Declaration.load(file, trust=True)
    assert sweep.grid() == [{"prior": "StandardNormal"}, {"prior": "Mine"}]
    assert sweep.axes[0].values[1] == f"{tmp_path / 'mine.py'}:Mine"
    config = sweep.config({"prior": "StandardNormal"}, 1)
    assert (config.epochs, config.seed, config.latent_dim) == (7, 1, (5, 3))
    # What a sweep's folder keeps declares the same, wherever it lies.
    again = Declaration.of(dict(sweep.given))
    assert (again.fixed, again.axes) == (sweep.fixed, sweep.axes)


def test_ranges_are_for_samplers():
    given = {"lr": {"low": 1e-4, "high": 1e-2, "log": True}, "sampler": "TPESampler", "trials": 5}
    sweep = Declaration.of(given)
    assert sweep.axes[0].values == Range(1e-4, 1e-2, True)
    assert sweep.config({"lr": 0.003}, 0).lr == 0.003
    del given["sampler"], given["trials"]
    with pytest.raises(ValueError, match="lr is a range, which no grid goes through"):
        Declaration.of(given)


WRONG = [
    ([], "A sweep is a mapping of options"),
    ({"priors": ["Vamp"]}, "There is no option 'priors'. Did you mean prior?"),
    ({"prior": []}, "prior has no value"),
    ({"prior": ["Vamp", "pyrovae.priors.Vamp"]}, "prior has a value twice"),
    ({"seed": 0}, "seed is a number of training seeds"),
    ({"seed": [1, 1]}, "seed names a training seed twice"),
    ({"seed": "many"}, "seed is a number of training seeds"),
    ({"lr": {"low": 1, "high": 0.1}}, "low must be less than high"),
    ({"lr": [0.1], "trials": 3}, "trials is for a sampler"),
    ({"lr": [0.1], "sampler": "TPESampler"}, "A sampler needs trials"),
    ({"lr": [0.1], "sampler": "TPESampler", "trials": 0}, "trials must be a positive integer"),
    (
        {"estimator": ["ELBO", "IWAE"], "pruner": "MedianPruner"},
        "A pruner compares validation bounds, and those of runs with another estimator mean",
    ),
]


@pytest.mark.parametrize(("given", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_declares_no_sweep_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Declaration.of(given)


def test_a_value_that_fits_nothing_is_refused_before_anything_is_trained():
    with pytest.raises(ValueError, match=r"There is no class 'Vampp'\. Did you mean Vamp"):
        Declaration.of({"prior": ["StandardNormal", "Vampp"]}).check()
    with pytest.raises(ValueError, match="latent_dim"):
        Declaration.of({"latent_dim": [4, "four"]}).check()
    # A hierarchical model takes no posterior, a VAE does: each value takes part in some model.
    models = {"model": ["VAE", "ConditionalVAE"], "prior": ["StandardNormal", "DiagonalNormal"]}
    Declaration.of(models).check()


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no sweep at"):
        Declaration.load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("prior: [")
    with pytest.raises(ValueError, match=r"bad\.yaml is no YAML"):
        Declaration.load(tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").write_text("priors: [Vamp]")
    with pytest.raises(ValueError, match=r"bad\.yaml: There is no option 'priors'"):
        Declaration.load(tmp_path / "bad.yaml")


DOCS = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["docs/sweeps.md", "README.md"])
def test_what_the_pages_declare_are_sweeps(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert blocks
    for block in blocks:
        declaration = Declaration.of(yaml.safe_load(block))
        assert declaration.check().data == "digits"
        assert len(declaration.seeds) >= 3


def test_the_commands_of_the_page_parse():
    text = (DOCS / "docs/sweeps.md").read_text(encoding="utf-8")
    commands = re.findall(r"^pyrovae (sweep .*)$", text, re.MULTILINE)
    assert commands
    for command in commands:
        function, given = parse("sweep", command.split()[1:])
        assert function.__name__ == "sweep"
        assert given["file"].name == "priors.yaml"
