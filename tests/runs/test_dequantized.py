"""A run whose noise of grey levels is learned: trained, saved, loaded and evaluated."""

import pytest
import torch
from helpers.runs import call

import pyrovae as pv


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "levels"
    options = "--limit 40 --epochs 2 --likelihood Gaussian --likelihood.scale learned"
    options += " --encoder.hidden [8] --decoder.hidden [8] --latent_dim 2 --method.num_particles 20"
    assert call(f"train --dequantize variational {options} --out {out}") == 0
    return out


def test_evidence_is_of_levels_and_comes_again_from_the_saved_weights(run):
    evidence = pv.Evidence.load(run / "evidence.nc")
    assert evidence.dataset.attrs["data_scale"] == 1.0
    assert 0 < evidence.bits_per_dim < 20
    vae = pv.load_run(run)
    assert int(vae.num_levels) == 17
    splits = pv.runs.load_data(pv.Config.load(run / "config.yaml"))
    again = pv.log_marginal(*vae.programs, splits.test, num_particles=20)
    assert again.mean() == pytest.approx(evidence.mean(), rel=1e-6)
    other = pv.log_marginal(vae.model, vae.guide, splits.test, num_particles=20)
    assert abs(other.mean() - evidence.mean()) > 1  # a density at the levels
    assert vae.sample(2).shape == (2, 8, 8)


def test_the_page_says_why_there_is_no_comparison(run):
    assert "is not known: the noise of the grey levels" in (run / "report.html").read_text()


def test_the_noise_was_trained(run):
    vae = pv.load_run(run, device="cpu")
    fresh = pv.runs.declare(pv.Config.load(run / "config.yaml"), (8, 8))
    pairs = zip(vae.dequantization.parameters(), fresh.dequantization.parameters(), strict=True)
    assert not any(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--likelihood Gaussian --binarize threshold", "does not hold grey levels"),
        ("--likelihood DiscretizedLogistic", "dequantize makes real numbers"),
    ],
)
def test_what_has_no_levels_is_refused(options, message, tmp_path, capsys):
    out = tmp_path / "out"
    assert call(f"train --dequantize variational --limit 20 {options} --out {out}") == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(("number", "message"), [(3, "draws no grey levels"), (0, "at least 1")])
def test_bdmc_is_refused_before_anything_is_computed(number, message, run, monkeypatch, capsys):
    def evaluate(*_):
        raise AssertionError("It computes.")

    monkeypatch.setattr(pv.runs, "evaluate", evaluate)
    before = {*run.iterdir()}
    assert call(f"evaluate {run} --bdmc {number}") == 1
    assert message in capsys.readouterr().err
    assert {*run.iterdir()} == before
