"""What comes after training: evaluate, estimators, compare, sample."""

import os
import re
import shutil

import numpy as np
import pytest
import torch
from helpers.runs import TINY, call

import pyrovae as pv
from pyrovae import estimators, runs
from pyrovae.compare import EstimatorComparison, compare_estimators
from pyrovae.runs import load_data


def test_evaluate(run, tmp_path, capsys):
    before = {p: p.read_bytes() for p in run.iterdir()}
    assert call("evaluate", run, "--method.num_particles 50 --seed 5") == 0
    shown = capsys.readouterr().out
    assert {p: p.read_bytes() for p in before} == before  # nothing that was there has changed
    assert (run / "evidence-2.png").exists()
    first, again = (pv.Evidence.load(run / name) for name in ("evidence.nc", "evidence-2.nc"))
    # Trap: a test set binarised anew at each evaluation.
    np.testing.assert_array_equal(first.log_marginal, again.log_marginal)
    assert f"held-out log-likelihood: {again.mean():.3f}" in shown
    few = "--part valid --limit 7 --method.num_particles 9"
    assert call("evaluate", run, few) == 0
    assert len(pv.Evidence.load(run / "evidence-3.nc")) == 7


def test_evaluate_shows_more_when_asked(run, tmp_path, capsys):
    more = "--limit 6 --nats --convergence 1 4 16 --method.num_particles 30 --out"
    assert call("evaluate", run, more, tmp_path / "more.nc") == 0
    shown = capsys.readouterr().out
    assert re.search(r"reconstruction +-\d+\.\d+", shown)
    means = [float(v) for v in re.findall(r"^ +(?:1|4|16) +(-\d+\.\d+)", shown, re.MULTILINE)]
    assert means == sorted(means)  # disjoint sets of the same particles
    assert len(means) == 3
    assert (tmp_path / "more-convergence.png").read_bytes().startswith(b"\x89PNG")
    ais = "--method AIS --method.num_temperatures 3 --method.num_chains 2 --bdmc 3 --out"
    assert call("evaluate", run, "--limit 2", ais, tmp_path / "ais.nc") == 0
    assert pv.Evidence.load(tmp_path / "ais.nc").method == "AIS"
    assert "Sandwich of 3 simulated data" in capsys.readouterr().out
    assert (tmp_path / "ais-sandwich.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("place", ["default", "--out"])
def test_two_evaluations_at_once_lose_nothing(place, run, tmp_path, monkeypatch, capsys):
    """A second command comes while the first one computes: it takes another name."""
    folder, evaluated, codes = tmp_path / "run", runs.evaluate, []
    shutil.copytree(run, folder)
    words = ["evaluate", folder, "--limit 5 --method.num_particles 9"]
    words += ["--out", tmp_path / "mine.nc"] if place == "--out" else []

    def evaluate(*args):
        monkeypatch.setattr(runs, "evaluate", evaluated)
        codes.append(call(*words, "--seed 2"))
        return evaluated(*args)

    monkeypatch.setattr(runs, "evaluate", evaluate)
    before = {path.name for path in folder.iterdir()}
    assert call(*words, "--seed 1") == 0
    new = {path.name for path in folder.iterdir()} - before
    if place == "--out":  # the name is taken
        assert (codes, new) == ([1], set())
        assert "This process is at work" in capsys.readouterr().err
        assert pv.Evidence.load(tmp_path / "mine.nc").dataset.attrs["seed"] == 1
        return
    number = 2 + sum(name.startswith("evidence-") and name.endswith(".nc") for name in before)
    names = [f"evidence-{number + i}" for i in (0, 1)]
    assert codes == [0]
    assert new == {f"{name}.{suffix}" for name in names for suffix in ("nc", "png")}
    seeds = [pv.Evidence.load(folder / f"{name}.nc").dataset.attrs["seed"] for name in names]
    assert seeds == [1, 2]


def test_sample(run, tmp_path):
    assert call("sample", run, "--num 5 --seed 3 --out", tmp_path / "x.npy") == 0
    vae = pv.load_run(run, device="cpu")
    torch.manual_seed(3)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), vae.sample(5).numpy())
    assert call("sample --mean", run) == 0
    assert (run / "samples-2.png").read_bytes().startswith(b"\x89PNG")


def test_estimators_at_the_weights_of_a_run(run, capsys):
    few = "--num_particles 2 --num_replicates 4 --num_data 3 --reference_particles 20"
    assert call("estimators", run, "--names ELBO DReG", few, "--no_gradient_bias") == 0
    found = EstimatorComparison.load(run / "estimators.nc").dataset
    opened = pv.runs.Run.open(run)
    vae = opened.load_vae("cpu")
    expected = compare_estimators(
        vae.model,
        vae.guide,
        load_data(opened.config).take(3).test,
        {"ELBO": estimators.ELBO(), "DReG": estimators.DReG()},
        num_particles=2,
        num_replicates=4,
        reference_particles=20,
        gradient_reference=False,
    ).dataset
    np.testing.assert_array_equal(found["bound"], expected["bound"])
    np.testing.assert_array_equal(found["snr"], expected["snr"])
    assert (run / "estimators.png").read_bytes().startswith(b"\x89PNG")
    assert "DReG" in capsys.readouterr().out


def test_compare_takes_the_newest_evidence_on_common_data(run, tmp_path, capsys):
    other = tmp_path / "other"
    full = "--method.num_particles 50"
    assert call("train", TINY, "--seed 1 --out", other) == 0
    assert call("evaluate", run, full) == 0
    assert call("evaluate", other, full) == 0
    assert call("evaluate", other, full, "--limit 4") == 0  # on other data than the run
    capsys.readouterr()
    assert call("compare", run, other, "--out", tmp_path / "table.nc") == 0
    shown = capsys.readouterr().out
    assert f"other: {other / 'evidence-2.nc'}" in shown
    import xarray

    newest = max(
        run.glob("evidence*.nc"), key=lambda p: (len(pv.Evidence.load(p)), os.stat(p).st_mtime)
    )
    mine, theirs = pv.Evidence.load(newest), pv.Evidence.load(other / "evidence-2.nc")
    with xarray.open_dataset(tmp_path / "table.nc", engine="h5netcdf") as table:
        difference = float(table["difference"].sel(model="digits", reference="other"))
    expected = float((mine.log_marginal - theirs.log_marginal).mean())
    assert difference == pytest.approx(expected, abs=1e-12)
    assert call("compare", other / "evidence-3.nc", run) == 1
    assert "different data" in capsys.readouterr().err
