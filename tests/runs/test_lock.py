"""One owner a run: of several processes one goes on, and the others name it."""

import json
import os
import socket
import subprocess
import sys

import pytest
from helpers.runs import TINY, call

import pyrovae as pv
from pyrovae.runs import Run, lock
from pyrovae.runs.lock import Lock
from pyrovae.runs.process import me

# Takes a lock, or tells who has it; holds it until its input ends. The packages are empty ones: to
# import what is in them otherwise takes seconds, and the lock needs nothing of it.
HOLDER = """
import sys
import types
from pathlib import Path

folder = Path(sys.argv[2]).parent
for name, place in {"pyrovae": folder.parent, "pyrovae.runs": folder}.items():
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(place)]
from pyrovae.runs.lock import Lock

sys.stdin.readline()
try:
    lock = Lock(Path(sys.argv[1]))
except BlockingIOError as error:
    print(error, flush=True)
else:
    print("mine", flush=True)
    sys.stdin.readline()
"""


def holder(folder):
    return subprocess.Popen([sys.executable, "-c", HOLDER, str(folder), lock.__file__], text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip


def start(process):
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_lock_names_its_owner_and_goes_with_it(tmp_path):
    process = holder(tmp_path)
    start(process)
    assert process.stdout.readline() == "mine\n"
    with pytest.raises(BlockingIOError, match=f"Process {process.pid} on {socket.gethostname()}"):
        Lock(tmp_path)
    process.kill()  # it cannot tidy up
    process.wait()
    assert (tmp_path / "lock").exists()
    mine = Lock(tmp_path)
    with pytest.raises(BlockingIOError, match="This process is at work"):
        Lock(tmp_path)
    mine.release()
    assert not [*tmp_path.iterdir()]


def test_a_process_that_ends_releases_its_lock(tmp_path):
    process = holder(tmp_path)
    start(process)
    process.communicate("\n")
    assert not [*tmp_path.iterdir()]


def test_a_number_that_was_given_to_another_process(tmp_path):
    """As in a container that starts again: the same number, another start."""
    owner = {**me(), "started": "1 before"}
    (tmp_path / "lock").write_text(json.dumps(owner))
    if os.path.exists("/proc/self/stat"):
        Lock(tmp_path).release()


# What stands in the file. A process of another container is not seen here.
NOT_OURS = {
    "nothing": "",
    "half a line": "{",
    "a list": "[]",
    "another host": json.dumps({**me(), "host": "elsewhere", "started": "1 before"}),
    "another container": json.dumps({**me(), "namespace": "pid:[1]", "started": "1 before"}),
    "no namespace": json.dumps({"pid": 2**22 + 5, "host": socket.gethostname()}),
}


@pytest.mark.parametrize("text", NOT_OURS.values(), ids=NOT_OURS)
def test_a_lock_of_another_host_or_of_nobody_is_left_alone(text, tmp_path):
    (tmp_path / "lock").write_text(text)
    with pytest.raises(BlockingIOError, match="If you know that it is gone, remove"):
        Lock(tmp_path)
    assert (tmp_path / "lock").read_text() == text


@pytest.mark.parametrize("stale", [False, True])
def test_of_two_processes_one_owns_the_folder(stale, tmp_path):
    """Both start at once, and again and again; half of the times over a dead owner's lock."""
    processes = [holder(tmp_path) for _ in range(3)]
    if stale:
        owner = {**me(), "pid": 2**22 + 5, "started": None}
        (tmp_path / "lock").write_text(json.dumps(owner))
    for process in processes:
        start(process)
    said = [process.stdout.readline() for process in processes]
    assert said.count("mine\n") == 1, said
    owner = processes[said.index("mine\n")].pid
    assert all(f"Process {owner} on" in line for line in said if line != "mine\n")
    for process in processes:
        process.communicate("\n")


@pytest.mark.slow
@pytest.mark.parametrize("stale", [False, True])
def test_of_many_tries_none_has_two_owners(stale, tmp_path):
    for i in range(25):
        (tmp_path / str(i)).mkdir()
        test_of_two_processes_one_owns_the_folder(stale, tmp_path / str(i))


def test_a_folder_that_is_in_use_is_refused(tmp_path, capsys):
    run = Run.create(pv.Config(), tmp_path / "run")
    assert call("train", TINY, "--out", run.path) == 1
    assert "is not empty" in capsys.readouterr().err
    (run.path / "checkpoint.pt").write_bytes(b"")
    assert call("train --resume", run.path) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"at work in {run.path}" in line
    run.release()
    (tmp_path / "empty").mkdir()
    mine = Lock(tmp_path / "empty")
    assert call("train", TINY, "--out", tmp_path / "empty") == 1
    assert f"at work in {tmp_path / 'empty'}" in capsys.readouterr().err
    mine.release()


@pytest.mark.slow
def test_two_starts_of_one_folder(tmp_path):
    """One trains; the other says who, or that there is something already, and takes nothing."""
    words = ["train", *TINY.split(), "--out", str(tmp_path / "run")]
    both = [
        subprocess.Popen([sys.executable, "-m", "pyrovae", *words], text=True,
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(2)
    ]  # fmt: skip
    errors = [process.communicate()[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], errors
    (line,) = errors[[p.returncode for p in both].index(1)].splitlines()
    assert "is not empty" in line or "is at work in" in line
    assert pv.load_run(tmp_path / "run") is not None
