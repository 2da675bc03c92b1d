"""What surrounds a run costs no run: terminals, homes, disks."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from helpers.runs import FILES, TINY, call

import pyrovae as pv
from pyrovae import nets
from pyrovae.compilation import inductor


def shell(text, **environment):
    """What a command of the shell printed on stderr, and its exit code."""
    kept = {k: v for k, v in os.environ.items() if k not in ("HOME", "USER", "LOGNAME")}
    text = text.replace("pyrovae ", f"{sys.executable} -m pyrovae ", 1)
    done = subprocess.run(["bash", "-c", text], env={**kept, **environment}, text=True,
                          capture_output=True, check=False)  # fmt: skip
    return done.stderr, done.returncode


@pytest.mark.slow
def test_ascii_a_closed_terminal_and_no_home(tmp_path):
    """All at once: letters that the terminal lacks, a reader that leaves, no place for caches."""
    nowhere = {
        "HOME": "/proc/none",
        "XDG_CACHE_HOME": "/proc/none",
        "TORCHINDUCTOR_CACHE_DIR": "/proc/none",
    }
    command = f"set -o pipefail; pyrovae train {TINY} --out {tmp_path / 'run'} | head -1"
    errors, code = shell(command, LC_ALL="C", PYTHONIOENCODING="ascii", **nowhere)
    assert code == 0, errors
    assert "Traceback" not in errors
    assert "warning: /proc/none cannot be written to; compiled code goes to " in errors
    assert {p.name for p in (tmp_path / "run").iterdir()} >= FILES
    assert not [p for p in (tmp_path / "run").iterdir() if p.name.startswith(("lock", "check"))]


@pytest.mark.slow
def test_a_full_disk(run, tmp_path):
    """A limit on the size of files is a disk that fills in the middle of one."""
    before = {p: p.read_bytes() for p in run.iterdir() if p.is_file()}
    errors, code = shell(f"ulimit -f 4; pyrovae evaluate {run} --method.num_particles 9")
    assert code == 1
    (line,) = [x for x in errors.splitlines() if "warning" not in x]
    assert line.startswith("pyrovae: ")
    assert "File too large" in line
    assert {p: p.read_bytes() for p in run.iterdir() if p.is_file()} == before
    parts = [*run.glob("*.parts/*")]  # what is finished stays, to go on from
    assert all(part.suffix == ".safetensors" for part in parts)
    errors, code = shell(f"ulimit -f 4; pyrovae train {TINY} --out {tmp_path / 'run'}")
    assert code == 1
    assert "File too large" in errors.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def is_readable(path):
    try:
        path.read_bytes()
    except FileNotFoundError:
        return True
    except PermissionError:
        return False
    return True


@contextmanager
def read_only(folder):
    """A folder in which nobody may write; root, who may always, is another user meanwhile."""
    mode, root = stat.S_IMODE(folder.stat().st_mode), os.geteuid() == 0
    folder.chmod(0o555)
    if root:
        os.seteuid(65534)
    try:
        if not is_readable(Path(sys.prefix, "pyvenv.cfg")):
            pytest.skip("root's environment is closed to the user that is to be refused")
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(mode)


def test_a_folder_that_is_read_only(run, monkeypatch, capsys):
    """Commands that write there say so in one line, before they work; nothing of it changes."""
    monkeypatch.chdir("/")  # where the other user may be
    with tempfile.TemporaryDirectory() as parent:
        os.chmod(parent, 0o777)  # pytest's own folders are closed to others
        copy = Path(parent) / "run"
        shutil.copytree(run, copy)
        before = {p: p.read_bytes() for p in copy.iterdir() if p.is_file()}
        assert call("sample", copy, "--num", 2, "--out", f"{parent}/first.npy") == 0
        capsys.readouterr()
        with read_only(copy):
            for words, said in (
                (["train", TINY, "--out", copy / "new"], f"Permission denied: {copy}/new"),
                (["train", "--resume", copy], "it is finished"),
                (["evaluate", copy, "--method.num_particles", 9], "with --out"),
                (["estimators", copy], f"{copy} cannot be written to: Permission denied. Copy"),
                (["sample", copy], "with --out"),
            ):
                assert call(*words) == 1
                (line,) = capsys.readouterr().err.splitlines()
                assert line.startswith("pyrovae: "), words
                assert said in line
            out = f"{parent}/second.npy"
            assert call("sample", copy, "--num", 2, "--out", out) == 0
        assert {p: p.read_bytes() for p in copy.iterdir() if p.is_file()} == before


def test_no_compiler(tmp_path, monkeypatch, capsys):
    """The captured graph runs, with a warning only where a compiled one was asked for."""
    monkeypatch.setattr("pyrovae.compilation.inductor.shutil.which", lambda _: None)
    monkeypatch.setattr(inductor, "switch_after", lambda *_: 1)  # any run would pay
    for name in ("begin", "compile_graph"):
        monkeypatch.setattr(inductor, name, lambda *_: pytest.fail("something was built"))
    inductor.has_compiler.cache_clear()
    try:
        assert call("train", TINY, "--out", tmp_path / "auto") == 0
        assert "compiler" not in capsys.readouterr().err
        vae = pv.VAE(4, 1, encoder=nets.MLP(2), decoder=nets.MLP(2))
        with pytest.warns(UserWarning, match="not compiled: no compiler for cpu is installed"):
            vae.fit(torch.rand(8, 4).round(), epochs=1, compile=True, progress=False)
    finally:
        inductor.has_compiler.cache_clear()


def test_a_disk_that_fills_after_some_epochs(tmp_path, monkeypatch, capsys):
    """What was trained stays, and the line says how to go on."""
    from pyrovae.training import checkpoint, outputs

    save, count = checkpoint.save, []

    def full(state, path):
        count.append(1)
        if len(count) == 3:
            raise OSError(28, "No space left on device")
        save(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", full)
        patch.setattr(outputs.Outputs, "affordable", lambda self: True)  # after each epoch
        assert call("train", TINY, "--epochs 4 --out", tmp_path / "run") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left on device; go on with: pyrovae train --resume" in line
    assert call("train --resume", tmp_path / "run") == 0
    assert {p.name for p in (tmp_path / "run").iterdir()} >= FILES


def test_an_interrupt_after_training_keeps_the_way_to_the_report(tmp_path, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    for place in ("evaluate", "report"):
        out = tmp_path / place
        with monkeypatch.context() as patch:
            patch.setattr(f"pyrovae.runs.pipeline.{place}", interrupt)
            assert call("train", TINY, "--out", out) == 130
        line = capsys.readouterr().err.splitlines()[-1]
        assert line == (
            f"pyrovae: interrupted; the weights are saved; go on with: pyrovae train --resume {out}"
        )
        assert pv.load_run(out) is not None
        assert call("train --resume", out) == 0
        assert {p.name for p in out.iterdir()} >= FILES
        assert not (out / "checkpoint.pt").exists()


@pytest.mark.slow
def test_a_line_for_each_epoch_and_tensorboard(tmp_path, capsys):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert call("train", TINY, "--verbose --tensorboard --out", tmp_path / "run") == 0
    lines = [x for x in capsys.readouterr().out.splitlines() if x.startswith("epoch ")]
    assert len(lines) == 2
    assert all("valid -" in line and "beta 1" in line for line in lines)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert {"train_bound", "valid_bound", "kl", "beta"} <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Scalars("kl")] == [1, 2]


def test_a_missing_tensorboard_is_a_line(tmp_path, monkeypatch, capsys):
    from importlib import util

    found = util.find_spec
    monkeypatch.setattr(
        util, "find_spec", lambda n, *a: found(n, *a) if n != "tensorboard" else None
    )
    assert call("train", TINY, "--tensorboard --out", tmp_path / "run") == 1
    assert "pip install 'pyrovae[tensorboard]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", ["--num_particles 0", "--num_data 0", "--num_replicates 0"])
def test_estimators_of_nothing_are_refused(words, run, capsys):
    before = sorted(run.glob("estimators*"))
    assert call("estimators", run, words, "--names ELBO") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "found 0" in line or "found [0]" in line
    assert words.split()[0].strip("-") in line
    assert sorted(run.glob("estimators*")) == before
