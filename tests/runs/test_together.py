"""Runs of several processes: ``torchrun -m pyrovae train`` and ``evaluate``."""

import json
import subprocess
import sys

import pytest
import torch
from helpers.runs import FILES, TINY, call, declared, metrics
from helpers.together import environment, together
from safetensors.torch import load_file

import pyrovae as pv
from pyrovae.runs import Run, pipeline
from pyrovae.runs import together as processes
from pyrovae.runs.process import me


def agree(left, right):
    """Metrics and weights of two runs are equal up to rounding in single precision."""
    for one, other in zip(metrics(left), metrics(right), strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    mine, other = (load_file(run / "weights.safetensors") for run in (left, right))
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_train_and_evaluate_by_two_processes(tmp_path, capsys):
    alone, both = tmp_path / "alone", tmp_path / "both"
    words = [*TINY.split(), "--batch_size", "25"]
    assert call("train", f"--out {alone}", " ".join(words)) == 0
    printed = together(["-m", "pyrovae", "train", "--out", both, *words])
    assert {path.name for path in both.iterdir()} == {path.name for path in alone.iterdir()}
    assert {path.name for path in both.iterdir()} >= FILES
    agree(both, alone)
    assert "held-out log-likelihood" in printed[0][0]
    assert printed[1][0] == ""
    together(["-m", "pyrovae", "evaluate", both, "--method.num_particles", 40])
    assert not list(both.glob("*.parts"))
    assert call("evaluate", f"{both} --method.num_particles 40 --out {tmp_path / 'one.nc'}") == 0
    found, expected = (pv.Evidence.load(p) for p in (both / "evidence-2.nc", tmp_path / "one.nc"))
    assert found.dataset.identical(expected.dataset)


# Process RANK is lost at its step STEP, the first time.
LOST = """
RANK, STEP = "{rank}", {step}
import os, signal
from pyrovae.cli import main

count = [0]
from pyrovae.svi import Step as step
take = step.take

def lost(self, *batch, **options):
    count[0] += 1
    here = os.environ["RANK"] == RANK and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if here and count[0] == STEP:
        os.kill(os.getpid(), signal.SIGKILL)
    return take(self, *batch, **options)

step.take = lost
raise SystemExit(main())
"""


def torchrun(*words, **options):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--standalone", "--monitor_interval", "0.2", *map(str, words)]
    return subprocess.Popen(command, env=environment(), text=True, **options)


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "step"), [(1, 12), (0, 2)], ids=["later", "first epoch"])
def test_torchrun_goes_on_after_a_lost_process(rank, step, tmp_path):
    alone, both = tmp_path / "alone", tmp_path / "both"
    words = [*TINY.replace("--epochs 2", "--epochs 6").split(), "--batch_size", "20"]
    assert call("train", f"--out {alone}", " ".join(words)) == 0
    (tmp_path / "lost.py").write_text(LOST.format(rank=rank, step=step))
    job = torchrun("--max_restarts", 1, tmp_path / "lost.py", "train", "--out", both, *words)
    assert job.wait(300) == 0
    agree(both, alone)


@pytest.mark.slow
def test_a_lost_process_leaves_the_checkpoint_and_a_word(tmp_path):
    both = tmp_path / "both"
    words = [*TINY.replace("--epochs 2", "--epochs 6").split(), "--batch_size", "20"]
    (tmp_path / "lost.py").write_text(LOST.format(rank=1, step=12))
    job = torchrun(tmp_path / "lost.py", "train", "--out", both, *words, stderr=subprocess.PIPE)
    _, errors = job.communicate(timeout=300)
    assert job.returncode != 0
    assert len(metrics(both)) == 3  # four steps of the fourth epoch were not to be
    assert "Signal 9 (SIGKILL)" in errors
    assert call(f"train --resume {both}") == 0
    assert len(metrics(both)) == 6


def left_by_a_lost_process(config, path):
    """A run that was killed before its first checkpoint: its lock is that of a dead process."""
    run = Run.create(pipeline.settle(config)[0], path)
    run.metrics.write_text("half a row")
    (path / "tensorboard").mkdir()
    lock = path / "lock"
    lock.write_text(json.dumps({**me(), "started": "1 before"}))
    return run


def test_a_restart_before_the_first_checkpoint_begins_anew(tmp_path, monkeypatch):
    config = declared(TINY)
    left_by_a_lost_process(config, tmp_path / "run")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    found = pv.train(config, tmp_path / "run")
    assert len(metrics(found.path)) == 2
    assert {path.name for path in found.path.iterdir()} == {*FILES, "manifest.json"}


def test_a_restart_leaves_the_run_of_another_command_alone(tmp_path, monkeypatch):
    """As at the first start, which this refusal has ended."""
    run = left_by_a_lost_process(declared(TINY), tmp_path / "run")
    run.checkpoint.write_bytes(b"another's")
    before = {path: path.is_file() and path.read_bytes() for path in run.path.iterdir()}
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with pytest.raises(FileExistsError, match="is not empty"):
        pv.train(declared(f"{TINY} --seed 3"), run.path)
    assert {path: path.is_file() and path.read_bytes() for path in run.path.iterdir()} == before


def test_the_first_process_looks_at_the_folder_for_all(tmp_path, monkeypatch):
    """Between the looks of two processes the first one may have begun a new run."""
    config = pipeline.settle(declared(TINY))[0]
    run = Run.create(config, tmp_path / "run")
    run.checkpoint.write_bytes(b"that of the new run")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert processes.restarted(config, run.path)
    monkeypatch.setattr(processes, "follows", lambda: True)
    monkeypatch.setattr(processes, "told", lambda value: False)
    assert not processes.restarted(config, run.path)
    run.release()
