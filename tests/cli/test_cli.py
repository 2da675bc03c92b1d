"""The command line: what it writes is what Python gives, and what goes wrong is one line."""

import json
import os
import re
import signal
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import pyrovae as pv
from pyrovae.cli import main
from pyrovae.cli.options import chosen_parts
from pyrovae.cli.parse import parse

TINY = ["--data.limit", "60", "--epochs", "2", "--encoder.hidden", "16", "--decoder.hidden", "16"]
TINY += ["--latent-dim", "3", "--method.num-particles", "50"]
FILES = {
    "config.toml",
    "evidence.nc",
    "evidence.png",
    "learning_curve.png",
    "metrics.jsonl",
    "reconstructions.png",
    "report.html",
    "samples.png",
    "weights.safetensors",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", *TINY, "--seed", "5", "--out", str(path)]) == 0
    return path


def metrics(path):
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def assert_same_run(left, right):
    assert metrics(left) == metrics(right)
    mine, other = (load_file(p / "weights.safetensors") for p in (left, right))
    assert mine.keys() == other.keys()
    for name, tensor in mine.items():
        assert torch.equal(tensor, other[name]), name


def test_help_needs_no_torch():
    code = "import sys; from pyrovae.cli import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    for arguments in (
        ["--help"],
        ["train", "--help"],
        ["train", "--shape", "conditional", "--help"],
        [],
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "0 False", done.stdout[-300:]


def test_help_names_every_part(capsys):
    from pyrovae import catalog

    assert main(["train", "--help"]) == 0
    shown = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    for kind in catalog.KINDS:
        assert f"--{kind} " in shown
        for name in catalog.choices(kind):
            assert re.search(rf"\b{name}\b", shown), name


def test_help_shows_the_options_of_the_chosen_part(capsys):
    assert main(["train", "--prior", "vamp", "--help"]) == 0
    assert "--prior.num-components" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == pv.__version__


def test_run_folder(run):
    assert {p.name for p in run.iterdir()} >= FILES
    assert not (run / "checkpoint.pt").exists()
    assert [row["epoch"] for row in metrics(run)] == [1, 2]


def test_config_gives_the_run_again(run, tmp_path):
    assert (
        main(["train", "--config", str(run / "config.toml"), "--out", str(tmp_path / "again")]) == 0
    )
    assert_same_run(run, tmp_path / "again")
    assert (tmp_path / "again" / "config.toml").read_text() == (run / "config.toml").read_text()


def test_run_is_what_python_gives(run):
    from pyrovae import nets

    digits = pv.data.load("digits").binarize("threshold").take(60)
    torch.manual_seed(5)
    vae = pv.VAE((8, 8), 3, encoder=nets.MLP(16), decoder=nets.MLP(16))
    pv.fit(vae.model, vae.guide, digits.train, valid=digits.valid, epochs=2, patience=30, seed=5)
    weights = load_file(run / "weights.safetensors")
    for name, tensor in vae.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    expected = pv.log_marginal(vae.model, vae.guide, digits.test, num_particles=50, seed=5)
    found = pv.Evidence.load(run / "evidence.nc")
    np.testing.assert_array_equal(found.log_marginal, expected.log_marginal)


def test_evaluate(run, tmp_path, capsys):
    before = {p: p.read_bytes() for p in run.iterdir()}
    assert main(["evaluate", str(run), "--method.num-particles", "50", "--seed", "5"]) == 0
    shown = capsys.readouterr().out
    assert {p: p.read_bytes() for p in before} == before  # nothing that was there has changed
    assert (run / "evidence-2.png").exists()
    first, again = (pv.Evidence.load(run / name) for name in ("evidence.nc", "evidence-2.nc"))
    # Trap: a test set binarised anew at each evaluation.
    np.testing.assert_array_equal(first.log_marginal, again.log_marginal)
    assert f"held-out log-likelihood: {again.mean():.3f}" in shown
    assert (
        main(
            ["evaluate", str(run), "--part", "valid", "--limit", "7", "--method.num-particles", "9"]
        )
        == 0
    )
    assert len(pv.Evidence.load(run / "evidence-3.nc")) == 7
    more = ["--nats", "--convergence", "1", "4", "16", "--method.num-particles", "30"]
    assert (
        main(["evaluate", str(run), "--limit", "6", "--out", str(tmp_path / "more.nc"), *more]) == 0
    )
    shown = capsys.readouterr().out
    assert re.search(r"reconstruction +-\d+\.\d+", shown)
    means = [float(v) for v in re.findall(r"^ +(?:1|4|16) +(-\d+\.\d+)", shown, re.MULTILINE)]
    assert means == sorted(means)  # disjoint sets of the same particles
    assert len(means) == 3
    assert (tmp_path / "more-convergence.png").read_bytes().startswith(b"\x89PNG")
    ais = [
        "--method",
        "ais",
        "--method.num-temperatures",
        "3",
        "--method.num-chains",
        "2",
        "--bdmc",
        "3",
    ]
    assert main(["evaluate", str(run), "--limit", "2", *ais]) == 0
    assert pv.Evidence.load(run / "evidence-4.nc").method == "AIS"
    assert "Sandwich of 3 simulated data" in capsys.readouterr().out
    assert (run / "evidence-4-sandwich.png").read_bytes().startswith(b"\x89PNG")


def test_sample(run, tmp_path):
    from pyrovae.runs.run import Run

    assert (
        main(["sample", str(run), "--num", "5", "--seed", "3", "--out", str(tmp_path / "x.npy")])
        == 0
    )
    vae = Run.open(run).load_vae("cpu")
    torch.manual_seed(3)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), vae.sample(5).numpy())
    assert main(["sample", str(run)]) == 0
    assert (run / "samples-2.png").read_bytes().startswith(b"\x89PNG")


def test_estimators_at_the_weights_of_a_run(run, capsys):
    from pyrovae import estimators
    from pyrovae.compare import EstimatorComparison, compare_estimators
    from pyrovae.runs.run import Run, load_data

    few = [
        "--num-particles",
        "2",
        "--num-replicates",
        "4",
        "--num-data",
        "3",
        "--reference-particles",
        "20",
    ]
    assert (
        main(["estimators", str(run), "--names", "elbo", "dreg", *few, "--no-gradient-bias"]) == 0
    )
    found = EstimatorComparison.load(run / "estimators.nc").dataset
    opened = Run.open(run)
    vae = opened.load_vae("cpu")
    expected = compare_estimators(
        vae.model,
        vae.guide,
        load_data(opened.given).take(3).test,
        {"elbo": estimators.ELBO(), "dreg": estimators.DReG()},
        num_particles=2,
        num_replicates=4,
        reference_particles=20,
        gradient_reference=False,
    ).dataset
    np.testing.assert_array_equal(found["bound"], expected["bound"])
    np.testing.assert_array_equal(found["snr"], expected["snr"])
    assert (run / "estimators.png").read_bytes().startswith(b"\x89PNG")
    assert "dreg" in capsys.readouterr().out


def test_compare_takes_the_newest_evidence_on_common_data(run, tmp_path, capsys):
    other = tmp_path / "other"
    assert main(["train", *TINY, "--seed", "1", "--out", str(other)]) == 0
    full, few = ["--method.num-particles", "60"], ["--limit", "4", "--method.num-particles", "60"]
    assert main(["evaluate", str(other), *full]) == 0
    assert main(["evaluate", str(other), *few]) == 0  # on other data than the run
    capsys.readouterr()
    assert main(["compare", str(run), str(other), "--out", str(tmp_path / "table.nc")]) == 0
    shown = capsys.readouterr().out
    assert f"other: {other / 'evidence-2.nc'}" in shown
    import xarray

    mine = pv.Evidence.load(
        max(run.glob("evidence*.nc"), key=lambda p: (len(pv.Evidence.load(p)), os.stat(p).st_mtime))
    )
    theirs = pv.Evidence.load(other / "evidence-2.nc")
    with xarray.open_dataset(tmp_path / "table.nc", engine="h5netcdf") as table:
        difference = float(table["difference"].sel(model="digits", reference="other"))
    assert difference == pytest.approx(
        float((mine.log_marginal - theirs.log_marginal).mean()), abs=1e-12
    )
    assert main(["compare", str(other / "evidence-3.nc"), str(run)]) == 1
    assert "different data" in capsys.readouterr().err


SWAPS = {
    "--prior vamp --prior.num-components 7": ("prior", "Vamp(num_components=7)"),
    "--likelihood continuous-bernoulli": ("likelihood", "ContinuousBernoulli()"),
    "--likelihood gaussian --likelihood.scale learned": ("likelihood", "Gaussian(scale='learned')"),
    "--likelihood gaussian --likelihood.scale 0.5": ("likelihood", "Gaussian(scale=0.5)"),
    "--posterior full-rank-normal": ("posterior", "FullRankNormal()"),
    "--encoder conv --encoder.channels 8 16 --encoder.hidden 32": (
        "encoder",
        "Conv(8, 16, hidden=32)",
    ),
    "--encoder.activation tanh": ("encoder", "MLP(300, 300, activation='tanh')"),
    "--estimator dreg --estimator.num-particles 50": ("estimator", "DReG(num_particles=50)"),
    "--beta 0.5": ("beta", "Constant(0.5)"),
    "--beta=0.5": ("beta", "Constant(0.5)"),
    "--beta linear --beta.steps 5000": ("beta", "Linear(0.0, 1.0, steps=5000)"),
    "--method.num-particles 5000": ("method", "ImportanceSampling(num_particles=5000)"),
}


@pytest.mark.parametrize("text", SWAPS)
def test_swapping_a_part(text):
    kind, expected = SWAPS[text]
    parts = {
        k: c.build() for k, c in chosen_parts(parse(["train", *text.split()]), "train").items()
    }
    assert repr(parts[kind]) == expected
    default = chosen_parts(parse(["train"]), "train")
    for other in parts.keys() - {kind}:
        assert repr(parts[other]) == repr(default[other].build())


def test_a_swapped_run_and_a_users_own_part(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(
        "import pyro.distributions as dist\nimport torch\nfrom pyrovae.priors import Prior\n\n\n"
        "class Wide(Prior):\n"
        "    def __init__(self, scale: float = 3.0):\n        super().__init__()\n        self.scale = scale\n\n"
        "    def build(self):\n        self.register_buffer('zeros', torch.zeros(self.latent_dim))\n\n"
        "    def forward(self):\n        return dist.Normal(self.zeros, self.scale).to_event(1)\n"
    )
    out = tmp_path / "run"
    own = ["--prior", f"{tmp_path / 'mine.py'}:Wide", "--prior.scale", "2.0"]
    swapped = ["--likelihood", "continuous-bernoulli", "--estimator", "iwae", "--beta", "1"]
    assert main(["train", *TINY, *own, *swapped, "--out", str(out)]) == 0
    assert "prior=Wide(scale=2.0)" in capsys.readouterr().out
    evidence = pv.Evidence.load(out / "evidence.nc")
    assert evidence.dataset.attrs["data_scale"] == pytest.approx(
        1 / 16
    )  # a density of grey levels 0 to 16
    assert main(["evaluate", str(out)]) == 0


def test_options_win_over_the_config(tmp_path):
    config = tmp_path / "my.toml"
    config.write_text(
        'epochs = 7\nlr = 0.5\nprior = "vamp"\n[beta]\nname = "linear"\nsteps = 9\nstart = 0.5\n'
    )
    given = parse(["train", "--config", str(config), "--lr", "0.25", "--beta.steps", "11"])
    parts = chosen_parts(given, "train")
    assert (given.epochs, given.lr, given.prior) == (7, 0.25, "vamp")
    assert parts["beta"].values == {"start": 0.5, "stop": 1.0, "steps": 11}
    # Options of the part in the file do not stick to another part.
    other = parse(["train", "--config", str(config), "--beta", "0.1"])
    assert repr(chosen_parts(other, "train")["beta"].build()) == "Constant(0.1)"


def test_config_round_trip_keeps_every_kind_of_value(tmp_path):
    import tomli_w

    from pyrovae.cli.parse import to_config

    options = "--patience None --clip-norm 2.5 --data.download --data.valid-size 0.25 --data.test-size 30 "
    options += "--posterior.scale exp --posterior.log-variance-range -6 2 --bias-from-data --encoder.hidden"
    given = parse(["train", *options.split()])
    (tmp_path / "c.toml").write_text(tomli_w.dumps(to_config(given)))
    again = parse(["train", "--config", str(tmp_path / "c.toml")])
    assert to_config(again) == to_config(given)
    assert again.patience is None
    assert (again.data_options.valid_size, again.data_options.test_size) == (0.25, 30)
    assert again.data_options.download
    assert again.posterior_options.log_variance_range == (-6.0, 2.0)
    assert again.encoder_options.hidden == ()


def test_default_folders_are_new_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["train", *TINY]) == 0
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["digits-1", "digits-2"]


def test_a_point_guide_trains_and_has_no_evidence(tmp_path, capsys):
    arguments = [
        "--posterior",
        "delta",
        "--likelihood",
        "gaussian",
        "--beta",
        "0",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(["train", *TINY, *arguments]) == 0
    assert "none. The guide's site 'z' is a Delta" in capsys.readouterr().out
    assert (tmp_path / "run" / "weights.safetensors").exists()
    assert not (tmp_path / "run" / "evidence.nc").exists()


def test_data_that_are_no_images(tmp_path, capsys):
    counts = np.random.default_rng(0).poisson(2.0, (60, 5))
    np.save(tmp_path / "counts.npy", counts)
    arguments = [
        "--data",
        str(tmp_path / "counts.npy"),
        "--likelihood",
        "poisson",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(["train", *TINY, *arguments]) == 0
    assert not (tmp_path / "run" / "samples.png").exists()
    assert main(["sample", str(tmp_path / "run")]) == 0
    assert np.load(tmp_path / "run" / "samples.npy").shape == (64, 5)


BAD = {
    "unknown data": (
        ["train", "--data", "mnits"],
        1,
        "Unknown data set 'mnits'.*Did you mean 'mnist'",
    ),
    "missing data": (
        ["train", "--data", "no/such.npy"],
        1,
        "No data file or folder at no/such.npy",
    ),
    "data set not there": (
        ["train", "--data", "kmnist", "--data.root", "."],
        1,
        "kmnist is not in .*--data.root",
    ),
    "unknown part": (
        ["train", "--prior", "vmap"],
        2,
        "Unknown prior 'vmap'. Choose one of .*standard-normal",
    ),
    "unknown option": (["train", "--lrr", "3"], 2, "Unrecognized options: --lrr.*See --help"),
    "option of another part": (
        ["train", "--prior.num-components", "3"],
        2,
        "Unrecognized options: --prior.num",
    ),
    "wrong type": (["train", "--epochs", "many"], 2, "--epochs"),
    "unknown command": (["trian"], 2, "invalid|trian"),
    "missing option": (["train", "--beta", "linear"], 2, "--beta.steps"),
    "no epochs": (["train", "--epochs", "0"], 1, "epochs must be a positive integer, found 0"),
    "grey": (
        ["train", "--binarize", "none"],
        1,
        "Bernoulli is a distribution over 0 and 1.*--binarize",
    ),
    "no latent": (["train", "--latent-dim", "0"], 1, "latent_dim must be a positive integer"),
    "bad argument of a part": (
        ["train", "--posterior.scale", "cube"],
        1,
        "'softplus' or 'exp', found 'cube'",
    ),
    "unknown activation": (["train", "--encoder.activation", "cos"], 1, "Unknown activation 'cos'"),
    "no config": (["train", "--config", "none.toml"], 2, "No config file at none.toml"),
    "config and resume": (["train", "--config", "a", "--resume", "b"], 2, "not both"),
    "no particles": (
        ["train", "--method.num-particles", "0"],
        1,
        "num_particles must be at least 1, found 0",
    ),
    "no run": (["evaluate", "no-run"], 1, "There is no run folder no-run"),
    "not a run": (["evaluate", "."], 1, "no run folder: it has no config.toml"),
    "one run to compare": (["compare", "."], 1, "two runs or more, found 1"),
    "no estimator": (["estimators", ".", "--names", "ebol"], 1, "no run folder"),
    "no run to sample": (["sample", "."], 1, "no run folder"),
    "device": (["train", "--device", "abacus"], 1, "abacus"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case, tmp_path, monkeypatch, capsys):
    arguments, code, message = BAD[case]
    monkeypatch.chdir(tmp_path)
    extra = ["--data.limit", "60"] if arguments[0] == "train" else []
    assert main([*arguments, *extra]) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert re.match(f"pyrovae: .*({message})", lines[0]), lines[0]
    assert not [*tmp_path.rglob("config.toml")]  # no half-made run is left behind


def test_a_diverging_run_keeps_its_last_good_weights(tmp_path, capsys):
    # One step an epoch: the first leaves huge but finite weights, the second cannot be scored.
    assert (
        main(["train", *TINY, "--lr", "1e30", "--epochs", "9", "--out", str(tmp_path / "run")]) == 1
    )
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(r"pyrovae: Training stopped at step \d+ \(epoch \d+\): the \w+ became", line)
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


CONFIGS = {
    "not toml": ("epochs = ", "Cannot read the config"),
    "unknown key": ("epoch = 3", "--epoch"),
    "wrong type": ('epochs = "many"', "--epochs"),
    "unknown part": ('prior = "vmap"', "Unknown prior 'vmap'"),
    "date": ("epochs = 2020-01-01", "epochs must be text, a number"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_bad_config_is_one_line(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text, message = CONFIGS[case]
    (tmp_path / "bad.toml").write_text(text)
    assert main(["train", "--config", "bad.toml"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_nothing_is_overwritten(run, tmp_path, capsys):
    before = {p: p.read_bytes() for p in run.iterdir()}
    for name in ("taken.npy", "taken.nc"):
        (tmp_path / name).write_text("mine")
    assert main(["train", "--out", str(run)]) == 1
    assert main(["sample", str(run), "--out", str(tmp_path / "taken.npy")]) == 1
    assert main(["evaluate", str(run), "--out", str(tmp_path / "taken.nc")]) == 1
    assert main(["train", "--resume", str(run)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [("not empty" in x, "exists" in x, "it is finished" in x) for x in lines] == [
        (True, False, False),
        (False, True, False),
        (False, True, False),
        (False, False, True),
    ]
    assert {p: p.read_bytes() for p in run.iterdir()} == before
    assert all((tmp_path / name).read_text() == "mine" for name in ("taken.npy", "taken.nc"))


def test_damaged_runs(run, tmp_path, capsys):
    for name in ("config.toml", "weights.safetensors"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert main(["sample", str(tmp_path)]) == 1
    weights.write_bytes((run / "weights.safetensors").read_bytes())
    config = tomllib.loads((tmp_path / "config.toml").read_text())
    assert config["latent_dim"] == 3
    changed = (tmp_path / "config.toml").read_text().replace("latent_dim = 3", "latent_dim = 4")
    (tmp_path / "config.toml").write_text(changed)
    assert main(["sample", str(tmp_path)]) == 1
    weights.unlink()
    assert main(["sample", str(tmp_path)]) == 1
    damaged, changed, unfinished = capsys.readouterr().err.splitlines()
    assert "It is damaged" in damaged
    assert "does not fit" in changed
    assert "not finished" in unfinished


STOPPER = """
import os
import signal

from pyrovae.schedules import Schedule


class Interrupted(Schedule):
    def __init__(self, at: int = 7):
        self.at = at

    def __call__(self, step):
        if step == self.at and not os.environ.get("GO_ON"):
            os.kill(os.getpid(), signal.SIGINT)
        return 1.0
"""


@pytest.fixture
def listening():
    """A process that a shell started in the background ignores SIGINT; these tests send it to themselves."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listening")
def test_interrupted_and_resumed(tmp_path, capsys, monkeypatch):
    (tmp_path / "stopper.py").write_text(STOPPER)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    command = ["train", *TINY, "--epochs", "12", "--beta", f"{tmp_path / 'stopper.py'}:Interrupted"]
    assert main([*command, "--out", str(broken)]) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"pyrovae: interrupted; go on with: pyrovae train --resume {broken}"
    assert len(metrics(broken)) == 7  # one step an epoch
    assert main(["sample", str(broken)]) == 1
    assert "not finished" in capsys.readouterr().err
    monkeypatch.setenv("GO_ON", "1")
    assert main([*command, "--out", str(whole)]) == 0
    assert main(["train", "--resume", str(broken)]) == 0
    assert_same_run(whole, broken)
    assert {p.name for p in broken.iterdir()} >= FILES


@pytest.mark.usefixtures("listening")
def test_interrupted_before_the_first_epoch(tmp_path, capsys):
    (tmp_path / "stopper.py").write_text(STOPPER)
    stop = ["--beta", f"{tmp_path / 'stopper.py'}:Interrupted", "--beta.at", "0"]
    assert main(["train", *TINY, *stop, "--out", str(tmp_path / "run")]) == 130
    assert capsys.readouterr().err == "pyrovae: interrupted\n"
    assert not (tmp_path / "run").exists()  # nothing to keep


def test_a_crash_of_our_own_is_one_line(run, capsys, monkeypatch):
    (run / "extra").mkdir(exist_ok=True)
    monkeypatch.setattr("pyrovae.runs.run.safe_open", None)  # an error that nobody foresaw
    assert main(["sample", str(run)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pyrovae: ")
    monkeypatch.setenv("PYROVAE_TRACEBACK", "1")
    with pytest.raises(ValueError, match="Cannot read"):
        main(["sample", str(run)])


def test_pyros_trace_tables_are_not_shown():
    from pyrovae.cli import _first_paragraph

    error = "Shape mismatch inside plate('data')\n at site z.\nTrace Shapes:\n Param Sites:\nSample Sites:\n   z 3"
    assert _first_paragraph(error) == "Shape mismatch inside plate('data') at site z."
