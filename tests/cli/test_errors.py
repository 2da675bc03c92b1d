"""What goes wrong is one line on stderr, and leaves nothing half-made behind."""

import re

import pytest
import yaml
from helpers.runs import call

from pyrovae.cli import main
from pyrovae.errors import first_paragraph

TRAIN = {
    "--data mnits": (1, "Unknown data set 'mnits'.*Did you mean 'mnist'"),
    "--data no/such.npy": (1, "No data file or folder at no/such.npy"),
    "--data kmnist --data_root .": (1, "kmnist is not in "),
    "--prior vmap": (2, "prior: There is no class 'vmap'. Did you mean Vamp.*StandardNormal"),
    "--lrr 3": (2, "There is no option --lrr. Did you mean --lr. See --help"),
    "--latent-dim 3": (2, "There is no option --latent-dim. Did you mean --latent_dim"),
    "--prior.num_components 3": (2, "prior: StandardNormal takes no 'num_components'"),
    "--prior Vamp --prior.num_component 3": (2, "Did you mean num_components"),
    "--epochs many": (2, "epochs: Expected int, found many"),
    "--prior Vamp --prior.num_components many": (2, "prior.num_components: Expected int"),
    "--prior Vamp --prior.start mean": (2, "prior.start"),
    "--beta Linear": (2, "beta: give --beta.steps"),
    "--epochs 0": (2, "epochs must be a positive integer, found 0"),
    "--epochs -1": (2, "epochs must be a positive integer, found -1"),
    "--num_particles 5": (2, "mean --estimator.num_particles or --method.num_particles"),
    "--binarize none": (1, "Bernoulli is a distribution over 0 and 1.*--binarize"),
    "--latent_dim 0": (1, "latent_dim must be a positive integer"),
    "--patience long": (2, "patience: Expected int, found long"),
    "--latent_dim x": (2, "latent_dim: Expected int or a list in brackets, found x"),
    "--posterior.scale cube": (2, "Expected one of 'softplus', 'exp', found cube"),
    "--encoder.activation cos": (2, "Expected one of 'relu', .* found cos"),
    "--config none.yaml": (2, "There is no configuration at none.yaml"),
    "--config a --resume b": (2, "leave out --config"),
    "--method.num_particles 0": (1, "num_particles must be at least 1, found 0"),
    "--device abacus": (1, "abacus"),
    "--device gpu": (1, "There is no device 'gpu' here. Choose cpu"),
    "--device cuda:99": (1, "There is no device 'cuda:99' here. Choose cpu"),
    "--prior Prior": (2, "There is no class 'Prior'"),
    "--prior json.JSONDecoder": (2, "json.JSONDecoder is not a subclass of Prior or Posterior"),
    "--prior.help vamp": (2, "prior: There is no class 'vamp'. Did you mean Vamp"),
    "--model cluster": (2, "There is no class 'cluster'.*Did you mean ClusteringVAE"),
    "--model ClusteringVAE": (2, "model: give --model.num_clusters"),
    "--model ClusteringVAE --model.num_clusters 0": (1, "num_clusters must be a positive integer"),
    "--model ClusteringVAE --model.num_clusters 3 --prior Vamp": (
        2,
        "ClusteringVAE takes no prior. Leave out --prior, or give another --model",
    ),
    "--model HierarchicalVAE --model.conditional Delta": (
        1,
        "p.z1 . z2. must have a density, found Delta",
    ),
    "--model HierarchicalVAE --posterior PowerSpherical": (1, "lives on the space"),
    "--model HierarchicalVAE --latent_dim [3,2,0]": (1, "latent_dims must be a positive integer"),
    "--model HierarchicalVAE --latent_dim [3,2.5]": (2, "latent_dim"),
    "--latent_dim [3,2]": (1, r"latent_dim must be a positive integer, found \(3, 2\)"),
    "--model ConditionalVAE --prior Vamp": (1, "Vamp mixes.*posteriors.DiagonalNormal"),
    "--model ConditionalVAE --prior Delta": (1, "must have a density"),
    "--prior pyrovae.posteriors.Flow": (1, "prior must be one of pyrovae's.*found Flow"),
    "--model ConditionalVAE --condition_dim 4": (1, "Labels must lie in 0 ... 3"),
    "--model HierarchicalVAE --estimator BetaTC": (
        1,
        "BetaTC takes one latent site.*Use estimators.ELBO",
    ),
    "--model ClusteringVAE --model.num_clusters 3 --estimator FreeBits": (1, "per='site'"),
    "--estimator FreeBits --estimator.estimator IWAE": (1, "FreeBits controls a KL term"),
    "--estimator Capacity --estimator.capacity Linear": (2, "--estimator.capacity.steps"),
    "--encoder Log1p --encoder.net MPL": (2, "encoder.net: There is no class 'MPL'.*mean MLP"),
    "--prior Vamp --prior.start data": (1, "Vamp has 500 pseudo-inputs, found 60 data"),
}
OTHERS = {
    "trian": (2, "There is no command 'trian'. Did you mean train"),
    "evaluate": (2, "required: run"),
    "evaluate no-run": (1, "There is no run folder no-run"),
    "evaluate .": (1, "no run folder: it has no config.yaml"),
    "evaluate . --methd AIS": (2, "There is no option --methd. Did you mean --method"),
    "evaluate . --method AIs": (2, "method: There is no class 'AIs'. Did you mean AIS"),
    "evaluate . --num_particles 5": (2, "Did you mean --method.num_particles"),
    "compare . .": (1, "is given twice"),
    "compare .": (1, "two runs or more, found 1"),
    "estimators . --names ELBO": (1, "no run folder"),
    "estimators . --num_particles many": (2, "num_particles: Expected int, found many"),
    "estimators . --names EBOL": (2, "names: There is no class 'EBOL'. Did you mean ELBO"),
    "sample .": (1, "no run folder"),
}
CONFIGS = {
    "not YAML": ("epochs: [3", "bad.yaml"),
    "no mapping": ("- 3", r"bad.yaml holds no options: expected lines such as .* found \[3\]"),
    "unknown key": ("epoch: 3", "There is no option 'epoch'. Did you mean epochs"),
    "wrong type": ("epochs: many", "epochs: Expected int, found many"),
    "unknown class": ("prior: vmap", "There is no class 'vmap'. Did you mean Vamp"),
    "date": ("epochs: 2020-01-01", "epochs: Expected int"),
}


def check(text, code, message, capsys):
    assert call(text) in (code if isinstance(code, tuple) else (code,))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert re.match(f"pyrovae: .*({message})", lines[0]), lines[0]


@pytest.mark.parametrize("text", TRAIN)
def test_wrong_options_of_train(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    check(f"train --limit 60 {text}", *TRAIN[text], capsys)
    assert not [*tmp_path.iterdir()]  # no half-made run is left behind


@pytest.mark.parametrize("text", OTHERS)
def test_wrong_calls(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    check(text, *OTHERS[text], capsys)


@pytest.mark.parametrize("case", CONFIGS)
def test_wrong_configurations(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text, message = CONFIGS[case]
    (tmp_path / "bad.yaml").write_text(text)
    check("train --config bad.yaml", 2, message, capsys)


def test_damaged_runs(run, tmp_path, capsys):
    for name in ("config.yaml", "weights.safetensors"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    weights, config = tmp_path / "weights.safetensors", tmp_path / "config.yaml"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert call("sample", tmp_path) == 1
    weights.write_bytes((run / "weights.safetensors").read_bytes())
    assert yaml.safe_load(config.read_text())["latent_dim"] == 3
    config.write_text(config.read_text().replace("latent_dim: 3", "latent_dim: 4"))
    assert call("sample", tmp_path) == 1
    weights.unlink()
    assert call("sample", tmp_path) == 1
    lines = capsys.readouterr().err.splitlines()
    warned, damaged, _, changed, unfinished = lines
    assert "has no manifest.json, so its files could not be checked" in warned
    assert "It is damaged" in damaged
    assert "does not fit" in changed
    assert "not finished" in unfinished


def test_a_crash_of_our_own_is_one_line(run, capsys, monkeypatch):
    monkeypatch.setattr("pyrovae.runs.run.safe_open", None)  # an error that nobody foresaw
    assert main(["sample", str(run)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pyrovae: ")
    monkeypatch.setenv("PYROVAE_TRACEBACK", "1")
    with pytest.raises(ValueError, match="Cannot read"):
        main(["sample", str(run)])


def test_pyros_trace_tables_are_not_shown():
    error = "Shape mismatch inside plate('data')\n at site z.\nTrace Shapes:\n Param Sites:\n z 3"
    assert first_paragraph(error) == "Shape mismatch inside plate('data') at site z."
