"""What measurements chose is kept between processes; whatever happens to the file, there is an answer."""

from pathlib import Path

import pytest

from pyrovae.compilation import choices
from pyrovae.compilation.choices import remembered


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(choices, "FILE", tmp_path / "cache" / "choices.json")
    return tmp_path / "cache"


def never():
    raise AssertionError("measured again")


def test_an_answer_is_kept(folder):
    assert remembered(("product", 1), lambda: "native") == "native"
    assert remembered(("product", 1), never) == "native"
    assert remembered(("product", 2), lambda: None) is None
    assert remembered(("product", 2), never) is None
    assert len(list(folder.iterdir())) == 1


def test_other_circumstances_ask_anew(folder, monkeypatch):
    remembered(("product",), lambda: "native")
    monkeypatch.setattr(choices, "_circumstances", lambda: "another torch")
    assert remembered(("product",), lambda: "onednn") == "onednn"


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00"])
def test_a_damaged_file_is_written_anew(folder, text):
    folder.mkdir()
    (folder / "choices.json").write_text(text)
    assert remembered(("product",), lambda: "native") == "native"
    assert remembered(("product",), never) == "native"


def test_without_a_place_to_write_each_process_measures(folder):
    folder.write_text("a file where the folder should be")
    for answer in ("native", "onednn"):
        assert remembered(("product",), lambda answer=answer: answer) == answer


def test_without_a_home_each_process_measures(monkeypatch):
    def homeless(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    for answer in ("native", "onednn"):
        assert remembered(("product",), lambda answer=answer: answer) == answer


def test_answers_that_another_process_wrote_meanwhile_are_kept(folder):
    def measure():
        assert remembered(("another",), lambda: 1) == 1
        return 2

    assert remembered(("product",), measure) == 2
    assert remembered(("another",), never) == 1
