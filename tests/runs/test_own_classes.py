"""A run takes the files with classes of its user's along, so that these may move, change or go."""

import json

import numpy as np
import pytest
from helpers.runs import TINY, assert_same_run, call, files_with_classes, forget_files

import pyrovae as pv
from pyrovae.cli.parse import parse
from pyrovae.runs import Config, Run, pipeline, resume

MINE = """
from pyrovae import nets, priors


class Mine(priors.StandardNormal):
    def __init__(self, number: int = 1):
        super().__init__()
        self.number = {number} * number


class Net(nets.MLP):
    pass
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A file with classes, in the current folder."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.py"
    file.write_text(MINE.format(number=1))
    forget_files()
    yield file
    forget_files()


def test_help_shows_the_arguments_of_a_class_in_a_file(mine, capsys):
    with pytest.raises(SystemExit, match="0"):
        parse("train", ["--prior.help", "mine.py:Mine"])
    assert "--prior.number" in capsys.readouterr().out


def test_every_command_works_once_file_and_run_are_moved(mine, tmp_path):
    words = "--prior mine.py:Mine --prior.number 7 --encoder mine.py:Net --encoder.hidden 16"
    assert call("train", TINY, words, "--out run") == 0
    text = (tmp_path / "run" / "config.yaml").read_text()
    assert "class_path: mine.py:Mine" in text
    assert "class_path: mine.py:Net" in text
    assert str(mine) not in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert [path.name for path in (tmp_path / "run").glob("*.py")] == ["mine.py"]
    mine.rename("elsewhere.py")
    (tmp_path / "run").rename(tmp_path / "moved")

    forget_files()
    assert call("sample moved --trust --out x.npy") == 0
    forget_files()
    assert call("evaluate moved --trust --method.num_particles 50") == 0
    first, again = (
        pv.Evidence.load(f"moved/{file}").mean() for file in ("evidence.nc", "evidence-2.nc")
    )
    assert first == again
    forget_files()
    few = "--num_replicates 10 --num_particles 1 --num_data 5 --reference_particles 100"
    assert call("estimators moved --trust --names ELBO", few) == 0
    forget_files()
    assert call("train --config moved/config.yaml --trust --out again") == 0
    assert_same_run(tmp_path / "moved", tmp_path / "again")
    assert (tmp_path / "again" / "config.yaml").read_text() == text
    assert not (tmp_path / "moved" / "__pycache__").exists()


def stopped(*args):
    raise KeyboardInterrupt


@pytest.mark.parametrize("lost", ["deleted", "edited"])
def test_an_interrupted_run_goes_on_without_the_file(lost, mine, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_evidence", stopped)
        assert call("train", TINY, "--prior mine.py:Mine --out run") == 130
    forget_files()
    if lost == "deleted":
        mine.unlink()
        assert call("train --resume run --trust") == 0
    else:
        mine.write_text(MINE.format(number=100))
        assert resume("run", trust=True).evidence.is_file()
    forget_files()
    assert pv.load_run("run", trust=True).prior.number == 1


def test_a_run_from_elsewhere_runs_nothing_without_trust(mine, tmp_path, capsys):
    assert call("train", TINY, "--prior mine.py:Mine --out run") == 0
    forget_files()
    capsys.readouterr()
    with pytest.raises(ValueError, match=r"the class Mine of the file mine\.py, as prior"):
        pv.load_run("run")
    for command in ("sample run", "evaluate run", "train --config run/config.yaml"):
        assert call(command) in (1, 2)
        assert "--trust" in capsys.readouterr().err
    assert not files_with_classes()
    # What this process has loaded is no new code, whichever copy it was loaded from.
    Config(prior="mine.py:Mine")
    assert type(pv.load_run("run").prior).__name__ == "Mine"
    # A copy that differs from it is.
    copy = tmp_path / "run" / "mine.py"
    copy.write_text(MINE.format(number=3))
    with pytest.raises(ValueError, match=r"mine.py is not the file that the run wrote"):
        pv.load_run("run", trust=True)
    manifest = tmp_path / "run" / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["files"]["mine.py"]
    manifest.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="names code that is not pyrovae's own"):
        pv.load_run("run")


def test_other_files_in_the_folder_are_the_users_own(mine, tmp_path):
    assert call("train", TINY, "--out run") == 0
    (tmp_path / "run" / "analysis.py").write_text("import pyrovae\n")
    pv.load_run("run")


def test_files_of_one_name_are_kept_apart(mine, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.py").write_text(MINE.format(number=2))
    declared = Config(prior="other/mine.py:Mine", encoder="mine.py:Net", decoder="mine.py:Net")
    run = Run.create(declared, "run")
    run.release()
    assert (tmp_path / "run" / "mine.py").read_text() == MINE.format(number=2)
    assert (tmp_path / "run" / "mine_1.py").read_text() == MINE.format(number=1)
    opened = Run.open("run", unfinished=True)
    assert opened.config == declared
    opened.discard()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.py", "other", "run"]
    assert not [*(tmp_path / "run").iterdir()]


def test_what_was_loaded_is_kept_and_an_edited_file_is_loaded_anew(mine, tmp_path):
    before = Config(prior="mine.py:Mine")
    mine.write_text(MINE.format(number=100))
    after = Config(prior="mine.py:Mine")
    assert [c.build("prior").number for c in (before, after)] == [1, 100]
    mine.unlink()
    for number, config in ((1, before), (100, after)):
        run = Run.create(config, f"run-{number}")
        run.release()
        assert run.config_file.with_name("mine.py").read_text() == MINE.format(number=number)


def test_a_run_that_gives_nothing_leaves_no_file(mine, tmp_path):
    np.save("x.npy", np.zeros((20, 4), dtype=np.float32))
    words = "--data x.npy --likelihood Gaussian --prior mine.py:Mine --lr 1e30 --epochs 9"
    assert call("train", words, "--out run") == 1
    assert not (tmp_path / "run").exists()


def test_a_file_that_fails_halfway_leaves_nothing_behind(mine):
    mine.write_text(MINE.format(number=1) + "\n1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        Config(prior="mine.py:Mine")
    assert not files_with_classes()
    with pytest.raises(ValueError, match="There is no class 'Mien'"):
        Config(prior="Mien")
