"""What ``pyrovae train`` writes is what Python gives, and nothing is lost."""

import numpy as np
import torch
from helpers.runs import (
    FILES,
    SMALL,
    TINY,
    assert_same_run,
    assert_same_weights,
    call,
    declared,
    metrics,
)
from safetensors.torch import load_file

import pyrovae as pv


def test_run_folder(run):
    assert {p.name for p in run.iterdir()} >= FILES
    assert not (run / "checkpoint.pt").exists()
    assert [row["epoch"] for row in metrics(run)] == [1, 2]


def test_config_gives_the_run_again(run, tmp_path):
    config = run / "config.yaml"
    assert call("train --config", config, "--out", tmp_path / "again") == 0
    assert_same_run(run, tmp_path / "again")
    assert (tmp_path / "again" / "config.yaml").read_text() == config.read_text()


def test_run_is_what_python_gives(run):
    digits = pv.data.load("digits").binarize("threshold").take(60)
    torch.manual_seed(5)
    vae = pv.VAE((8, 8), 3, **SMALL)
    pv.fit(vae.model, vae.guide, digits.train, valid=digits.valid, epochs=2, patience=30, seed=5)
    assert_same_weights(vae, run)
    expected = pv.log_marginal(vae.model, vae.guide, digits.test, num_particles=50, seed=5)
    found = pv.Evidence.load(run / "evidence.nc")
    np.testing.assert_array_equal(found.log_marginal, expected.log_marginal)


def test_python_trains_the_same_run(run, tmp_path):
    config = pv.Config(
        limit=60,
        epochs=2,
        latent_dim=3,
        encoder={"class_path": "MLP", "init_args": {"hidden": [16]}},
        decoder={"class_path": "MLP", "init_args": {"hidden": [16]}},
        method={"class_path": "ImportanceSampling", "init_args": {"num_particles": 50}},
        seed=5,
    )
    made = pv.train(config, tmp_path / "run")
    assert_same_run(run, made.path)
    assert made.path == tmp_path / "run"


def test_a_swapped_run_and_a_users_own_class(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(
        "import pyro.distributions as dist\nimport torch\nfrom pyrovae.priors import Prior\n\n\n"
        "class Wide(Prior):\n"
        "    def __init__(self, scale: float = 3.0):\n"
        "        super().__init__()\n        self.scale = scale\n\n"
        "    def build(self):\n"
        "        self.register_buffer('zeros', torch.zeros(self.latent_dim))\n\n"
        "    def forward(self):\n"
        "        return dist.Normal(self.zeros, self.scale).to_event(1)\n"
    )
    out = tmp_path / "run"
    own = f"--prior {tmp_path / 'mine.py'}:Wide --prior.scale 2.0"
    swapped = "--likelihood ContinuousBernoulli --estimator IWAE --beta 1"
    assert call("train", TINY, own, swapped, "--out", out) == 0
    assert "prior=Wide(scale=2.0)" in capsys.readouterr().out
    evidence = pv.Evidence.load(out / "evidence.nc")
    assert evidence.dataset.attrs["num_dims"] == 0  # a density on a grid has no bits per dimension
    assert call("evaluate", out) == 0


def test_default_folders_are_new_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert call("train", TINY) == 0
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["digits-1", "digits-2"]


def test_a_point_guide_trains_and_has_no_evidence(tmp_path, capsys):
    point = "--posterior Delta --likelihood Gaussian --beta 0 --out"
    assert call("train", TINY, point, tmp_path / "run") == 0
    assert "none. The guide's site 'z' is a Delta" in capsys.readouterr().out
    assert (tmp_path / "run" / "weights.safetensors").exists()
    assert not (tmp_path / "run" / "evidence.nc").exists()
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "no held-out log-likelihood" in page
    assert "The guide&#39;s site &#39;z&#39; is a Delta" in page


def test_data_that_are_no_images(tmp_path, monkeypatch):
    counts = np.random.default_rng(0).poisson(2.0, (60, 5))
    np.save(tmp_path / "counts.npy", counts)
    monkeypatch.chdir(tmp_path)
    assert call("train", TINY, "--data counts.npy --likelihood Poisson --out run") == 0
    assert not (tmp_path / "run" / "samples.png").exists()
    monkeypatch.chdir(tmp_path / "run")  # the file of the data is found from every folder
    assert call("sample .") == 0
    assert np.load(tmp_path / "run" / "samples.npy").shape == (64, 5)
    assert call("evaluate . --limit 3 --method.num_particles 5") == 0


EXPLODING = """
from pyrovae.schedules import Schedule


class Exploding(Schedule):
    \"\"\"Infinite from the third step on.\"\"\"

    def __call__(self, step: int) -> float:
        return float("inf") if step >= 2 else 1.0
"""


def test_a_diverging_run_keeps_its_last_good_weights(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(EXPLODING)
    # One step an epoch: two epochs are finished.
    beta = f"--beta {tmp_path / 'mine.py'}:Exploding"
    assert call("train", TINY, beta, "--epochs 9 --out", tmp_path / "run") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pyrovae: Training stopped at step 3 (epoch 3): the ")
    assert " became" in line
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    assert all(tensor.abs().max() < 100 for tensor in weights.values())


def test_a_run_that_diverges_at_once_leaves_nothing(tmp_path, capsys):
    assert call("train", TINY, "--lr 1e30 --epochs 9 --out", tmp_path / "run") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pyrovae: Training stopped after epoch 1: the bound of the validation ")
    assert not (tmp_path / "run").exists()


def test_nothing_is_overwritten(run, tmp_path, capsys):
    before = {p: p.read_bytes() for p in run.iterdir()}
    for name in ("taken.npy", "taken.nc"):
        (tmp_path / name).write_text("mine")
    assert call("train --out", run) == 1
    assert call("sample", run, "--out", tmp_path / "taken.npy") == 1
    assert call("evaluate", run, "--out", tmp_path / "taken.nc") == 1
    assert call("train --resume", run) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [("not empty" in x, "exists" in x, "it is finished" in x) for x in lines] == [
        (True, False, False),
        (False, True, False),
        (False, True, False),
        (False, False, True),
    ]
    assert {p: p.read_bytes() for p in run.iterdir()} == before
    assert all((tmp_path / name).read_text() == "mine" for name in ("taken.npy", "taken.nc"))


def test_print_config_writes_what_config_reads(tmp_path, capsys):
    options = "--prior Vamp --prior.num_components 7 --epochs 3"
    assert call("train", options, "--print_config") == 0
    (tmp_path / "c.yaml").write_text(capsys.readouterr().out)
    assert pv.Config.load(tmp_path / "c.yaml") == declared(options)
    assert declared(f"--config {tmp_path / 'c.yaml'}") == declared(options)
