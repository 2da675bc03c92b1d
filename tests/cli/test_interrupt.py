"""A run that is interrupted can go on, and ends as if it never had been."""

import signal

import pytest
from helpers.runs import FILES, TINY, assert_same_run, call, metrics

STOPPER = """
import os
import signal

from pyrovae.schedules import Schedule


class Interrupted(Schedule):
    def __init__(self, at: int = 7):
        self.at = at

    def __call__(self, step):
        if step >= self.at >= 0 and not os.environ.get("GO_ON"):
            os.kill(os.getpid(), signal.Signals[os.environ.get("SIGNAL", "SIGINT")])
        return 1.0

    def __deepcopy__(self, memo):  # which fit takes before the first step
        if self.at < 0:
            os.kill(os.getpid(), signal.SIGINT)
        return self
"""


@pytest.fixture(autouse=True)
def listening():
    """A process that a shell started in the background ignores SIGINT; these tests send it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def stopper(tmp_path):
    (tmp_path / "stopper.py").write_text(STOPPER)
    return f"--beta {tmp_path / 'stopper.py'}:Interrupted"


def test_interrupted_and_resumed(stopper, tmp_path, capsys, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    command = ("train", TINY, "--epochs 12", stopper)
    assert call(*command, "--out", broken) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"pyrovae: interrupted; go on with: pyrovae train --resume {broken} --trust"
    assert len(metrics(broken)) == 7  # one step an epoch
    assert call("sample", broken) == 1
    assert "not finished" in capsys.readouterr().err
    monkeypatch.setenv("GO_ON", "1")
    assert call(*command, "--out", whole) == 0
    assert call("train --resume", broken) == 0
    assert_same_run(whole, broken)
    assert {p.name for p in broken.iterdir()} >= FILES


def test_interrupted_before_the_first_step(stopper, tmp_path, capsys, monkeypatch):
    """Nothing to keep: the run is removed, and with it the folders that it made, but no other."""
    command = ("train", TINY, stopper, "--beta.at -1 --out")
    assert call(*command, tmp_path / "new" / "run") == 130
    assert capsys.readouterr().err == "pyrovae: interrupted\n"
    assert not (tmp_path / "new").exists()
    empty = tmp_path / "parent" / "empty"
    empty.mkdir(parents=True)
    monkeypatch.chdir(empty)
    assert call(*command, ".") == 130
    assert capsys.readouterr().err == "pyrovae: interrupted\n"
    assert empty.is_dir()
    assert not [*empty.iterdir()]


def test_a_resumed_run_is_never_removed(stopper, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    assert call("train", TINY, "--epochs 12", stopper, "--beta.at 2 --out", run) == 130
    assert len(metrics(run)) == 2
    kept = {p.name for p in run.iterdir()} | {"checkpoint.pt.previous"}
    (run / "metrics.jsonl").unlink()  # which the checkpoint's own rows bring back
    capsys.readouterr()
    monkeypatch.setenv("SIGNAL", "SIGTERM")
    assert call("train --resume", run) == 143
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"pyrovae: terminated; go on with: pyrovae train --resume {run} --trust"
    assert {p.name for p in run.iterdir()} == kept
    assert [row["epoch"] for row in metrics(run)] == [1, 2, 3]


def test_resume_takes_no_other_option(tmp_path, capsys):
    assert call("train --resume", tmp_path, "--lr 0.1 --data digits") == 2
    assert "leave out --lr, --data" in capsys.readouterr().err


def test_half_a_line_in_the_metrics_costs_no_run(stopper, tmp_path, monkeypatch):
    """As a disk that was full leaves it."""
    run = tmp_path / "run"
    assert call("train", TINY, "--epochs 4", stopper, "--beta.at 2 --out", run) == 130
    with (run / "metrics.jsonl").open("a") as lines:
        lines.write('{"epoch": ')
    monkeypatch.setenv("GO_ON", "1")
    assert call("train --resume", run) == 0
    assert {p.name for p in run.iterdir()} >= FILES
