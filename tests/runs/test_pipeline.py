"""Training a run from Python: what counts is written first, and what decorates costs no run."""

import io
import math
import sys

import pytest
from helpers.runs import FILES

import pyrovae as pv
from pyrovae.runs import Run, terminal

SMALL = {"class_path": "MLP", "init_args": {"hidden": [8]}}
TINY = {
    "epochs": 1,
    "limit": 30,
    "encoder": SMALL,
    "decoder": SMALL,
    "method": {"class_path": "ImportanceSampling", "init_args": {"num_particles": 30}},
}


def test_figures_come_after_weights_and_evidence(tmp_path, monkeypatch, capsys):
    found = []

    def fail(*_, **__):
        run = tmp_path / "run"
        found.append((run / "weights.safetensors").exists() and (run / "evidence.nc").exists())
        raise RuntimeError("no ink")

    monkeypatch.setattr("pyrovae.training.History.plot", fail)
    monkeypatch.setattr("pyrovae.runs.figures.image_grid", fail)
    run = pv.train(pv.Config(**TINY), tmp_path / "run")
    assert found == [True] * 4  # the curve, and grids of data, samples and reconstructions
    warnings = capsys.readouterr().err.splitlines()
    assert "pyrovae: warning: no learning_curve.png: RuntimeError: no ink" in warnings
    assert run.page.exists()
    assert (run.path / "evidence.png").exists()
    assert not (run.path / "samples.png").exists()
    assert len(pv.Evidence.load(run.evidence)) == 30


def test_a_page_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    run = pv.train(pv.Config(**TINY), tmp_path / "run")
    shown = capsys.readouterr()
    assert "pyrovae: warning: no report.html: it needs jinja2" in shown.err
    assert "held-out log-likelihood: " in shown.out
    assert not run.page.exists()


def test_a_run_without_matplotlib_says_so(tmp_path, monkeypatch, capsys):
    for name in [n for n in sys.modules if n.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as where it is not installed
    run = pv.train(pv.Config(**TINY), tmp_path / "run")
    assert "no learning_curve.png: it needs matplotlib" in capsys.readouterr().err
    assert (run.path / "samples.png").exists()
    assert not (run.path / "learning_curve.png").exists()


class Closed(io.TextIOBase):
    encoding = "ascii"

    def write(self, text):
        text.encode("ascii")
        raise BrokenPipeError


def test_a_closed_terminal_costs_no_run(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Closed())
        run = pv.train(pv.Config(**TINY), tmp_path / "run")
    assert {p.name for p in run.path.iterdir()} >= FILES


def test_a_terminal_without_these_letters_shows_others(monkeypatch):
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    terminal.say("evidence", "-3.2 ± 0.1")
    ascii_only.seek(0)
    assert ascii_only.read() == "evidence  -3.2 ? 0.1\n"


def test_a_run_that_gives_nothing_leaves_the_folders_that_it_found(tmp_path):
    found = tmp_path / "empty"
    found.mkdir()
    config = pv.Config(**{**TINY, "clip_norm": -1.0})
    for path in (found, tmp_path / "new" / "deep"):
        with pytest.raises(ValueError, match="clip_norm"):
            pv.train(config, path)
    assert found.is_dir()
    assert not [*found.iterdir()]
    assert not (tmp_path / "new").exists()


def test_a_file_of_the_user_stays_and_so_does_its_folder(tmp_path):
    run = Run.create(pv.Config(), tmp_path / "run")
    (run.path / "notes.txt").write_text("mine")
    run.discard()
    assert [p.name for p in run.path.iterdir()] == ["notes.txt"]


def test_resume_needs_a_checkpoint(tmp_path):
    run = Run.create(pv.Config(), tmp_path / "run")
    with pytest.raises(ValueError, match=r"it has no checkpoint\.pt"):
        pv.runs.resume(run.path)
    with pytest.raises(ValueError, match="is not finished"):
        pv.load_run(run.path)
    with pytest.raises(FileNotFoundError, match="no run folder"):
        pv.load_run(tmp_path / "nowhere")


def test_bits_per_dimension_of_a_density_take_dequantised_levels(tmp_path):
    """A density on a grid of levels can be made as large as one likes, so it has no bits."""
    grey = {**TINY, "likelihood": "Gaussian", "binarize": "none"}
    plain = pv.Evidence.load(pv.train(pv.Config(**grey), tmp_path / "plain").evidence)
    assert "bits per dimension" not in repr(plain)
    with pytest.raises(ValueError, match="no bits per dimension"):
        _ = plain.bits_per_dim
    spread = pv.Evidence.load(
        pv.train(pv.Config(**grey, dequantize=True), tmp_path / "spread").evidence
    )
    # p(level) = p(x in its cell): in bits, log2 of 17 levels more than the density's on [0, 1].
    expected = -spread.mean() / 64 / math.log(2) + math.log2(17)
    assert spread.bits_per_dim == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="probabilities of levels"):
        pv.train(pv.Config(**{**grey, "likelihood": "DiscretizedLogistic"}, dequantize=True))
