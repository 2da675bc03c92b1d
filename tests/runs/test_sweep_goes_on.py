"""Sweeps that were stopped, and what is left of their runs."""

import json
import os
import signal
import subprocess
import sys
import time

import optuna
import pytest
from helpers.runs import FILES, assert_same_run, forget_files
from helpers.sweeps import TINY

import pyrovae as pv
from pyrovae.runs import Sweep, pipeline
from pyrovae.runs.sweeps.declaration import Declaration
from pyrovae.runs.sweeps.study import open_study
from pyrovae.runs.sweeps.worker import Worker


def test_an_interrupted_run_goes_on_from_its_checkpoint(tmp_path, quick, monkeypatch):
    given = {**TINY, "epochs": 3}
    seen = []
    report = optuna.Trial.report

    def interrupt(trial, value, step):
        seen.append(step)
        report(trial, value, step)
        if step == 2 and len(seen) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("pyrovae.runs.sweeps.worker._REPORT", -1.0)
    with monkeypatch.context() as patch:
        patch.setattr(optuna.Trial, "report", interrupt)
        with pytest.raises(KeyboardInterrupt, match="go on with the same command"):
            pv.sweep(given, tmp_path / "sweep")
    (folder,) = (tmp_path / "sweep" / "runs").iterdir()
    assert (folder / "checkpoint.pt").is_file()
    found = pv.sweep(given, tmp_path / "sweep")
    assert [row.state for row in found.rows] == ["complete"]
    assert [path.name for path in (tmp_path / "sweep" / "runs").iterdir()] == [folder.name]
    config = pv.Config(**{**given, "seed": 0})
    assert_same_run(folder, pv.train(config, tmp_path / "whole").path)
    assert "One model alone is compared with nothing." in repr(found)


def stop(*_):
    raise KeyboardInterrupt


def test_a_run_that_was_stopped_after_training_is_finished_like_any_other(tmp_path, monkeypatch):
    """There are weights and a checkpoint: what follows training is still to do."""
    folder = tmp_path / "sweep"
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "held_out", stop)
        with pytest.raises(KeyboardInterrupt):
            pv.sweep(TINY, folder)
    (run,) = (folder / "runs").iterdir()
    assert {"weights.safetensors", "checkpoint.pt"} <= {path.name for path in run.iterdir()}
    (row,) = pv.sweep(TINY, folder).rows
    assert (row.state, row.path) == ("complete", run)
    assert {path.name for path in run.iterdir()} == {*FILES, "manifest.json"}
    assert "evidence.nc" in json.loads((run / "manifest.json").read_text())["files"]


MINE = "from pyrovae.priors import StandardNormal\n\n\nclass Mine(StandardNormal):\n    pass\n"


def test_classes_that_a_mapping_names_need_no_trust(tmp_path, quick, monkeypatch):
    """Whoever gave the mapping gave the class: an interrupted run goes on with it, too."""
    (tmp_path / "mine.py").write_text(MINE)
    given = {**TINY, "prior": f"{tmp_path / 'mine.py'}:Mine"}
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "held_out", stop)
        with pytest.raises(KeyboardInterrupt):
            pv.sweep(given, tmp_path / "sweep")
    forget_files()  # as in a process that the sweep starts
    declaration = Declaration.load(tmp_path / "sweep" / "sweep.yaml", trust=True)
    study = open_study(tmp_path / "sweep", None, declaration)
    Worker(tmp_path / "sweep", declaration, study).work()
    (row,) = Sweep(tmp_path / "sweep", trust=True).rows
    assert (row.state, row.reason) == ("complete", "")


@pytest.mark.slow
def test_processes_share_a_sweep_and_a_killed_one_costs_nothing(tmp_path):
    """Two workers, one of which is killed in its first run; then the sweep itself is stopped."""
    import yaml

    given = {**TINY, "epochs": 400, "patience": None, "latent_dim": [2, 3], "seed": 2}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(given))
    command = [sys.executable, "-m", "pyrovae", "sweep", "grid.yaml", "--jobs", "2"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    folder = tmp_path / "sweeps" / "grid"
    # Past the first report, so that there is a checkpoint.
    running = wait_for(
        folder, lambda t: t.state.name == "RUNNING" and len(t.intermediate_values) > 1
    )
    os.kill(running.user_attrs["worker"]["pid"], signal.SIGKILL)
    copy = wait_for(folder, lambda t: t.user_attrs.get("deaths"))
    assert copy.user_attrs["run"] == running.user_attrs["run"]
    process.send_signal(signal.SIGINT)
    process.wait(120)
    assert process.returncode == 130
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    found = Sweep(folder)
    assert [row.state for row in found.rows] == ["complete"] * 4
    assert len([*(folder / "runs").iterdir()]) == 4
    for row in found.rows:
        config = pv.Config.load(row.path / "config.yaml")
        assert_same_run(row.path, pv.train(config, tmp_path / row.path.name).path)


def wait_for(folder, holds):
    """The first trial for which something holds, as soon as there is one."""
    for _ in range(600):
        if (folder / "study.journal").is_file():
            try:
                trials = open_study(folder, None).trials
            except KeyError:  # the study is not made yet
                trials = []
            for trial in trials:
                if holds(trial):
                    return trial
        time.sleep(0.5)
    raise AssertionError("it never happened")
