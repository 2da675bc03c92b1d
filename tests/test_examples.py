"""The examples run, and show what they say."""

import importlib.util
import os
import runpy
import sys
from pathlib import Path

import pytest

import pyrovae as pv

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
DATA = {"counts": "scrna_mouse_bladder.npz", "rgb": "cifar10_subset.npz"}
"""Files that an example needs beside the data sets of pyrovae."""
NEEDS = {"lightning_module": "lightning", "mixed_table": "pandas"}


def load(name):
    """The script as a module, which runs nothing."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def uncaptured(monkeypatch):
    """``fit`` without a captured graph, whose making takes longer than the steps of a quick run."""
    monkeypatch.setitem(pv.fit.__kwdefaults__, "capture", False)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_example_runs(path, monkeypatch, capsys, tmp_path, uncaptured):
    if path.stem in NEEDS:
        pytest.importorskip(NEEDS[path.stem])
    if path.stem in DATA:
        file = Path(os.environ.get("PYROVAE_DATA", "")) / DATA[path.stem]
        if not file.exists():
            pytest.skip(f"{path.name} needs {file.name} in the folder that PYROVAE_DATA names")
    monkeypatch.setattr(sys, "argv", [str(path), "--quick"])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_every_example_is_described_in_the_docs(path):
    page = (EXAMPLES.parent / "docs" / "examples.md").read_text(encoding="utf-8")
    assert f"`{path.name}`" in page


def test_autoencoder_reconstructs_better_and_samples_worse():
    results = load("autoencoder").compare(epochs=60)
    plain, vae, data = results["autoencoder"], results["VAE"], results["held-out data"]
    assert plain["squared error"] < vae["squared error"]
    # Measured after 200 epochs: 6.6, 2.2 and 1.2. A factor of 1.5 leaves room for the shorter run.
    assert plain["nearest"] > 1.5 * vae["nearest"] > data["nearest"]
    assert abs(vae["code scale"] - 1) < 0.15


@pytest.mark.slow
def test_beta_trades_rate_for_distortion():
    found = load("beta_vae").curve((0.5, 1.0, 4.0), epochs=30)
    rates = [nats.mean("kl") for nats in found.values()]
    distortions = [-nats.mean("reconstruction") for nats in found.values()]
    # After 100 epochs the steps are 3.6 and 5.8, and 2.5 and 11.7 nats, with errors of 0.3.
    assert rates[0] > rates[1] + 1 > rates[2] + 2
    assert distortions[0] + 0.5 < distortions[1] < distortions[2] - 2


@pytest.mark.slow
def test_counting_observed_pixels_alone_beats_zeros_in_the_gaps():
    found = load("missing_pixels").compare(epochs=30, num_particles=100)
    (observed, right), (zeros, fewer) = found["observed pixels"], found["zeros in the gaps"]
    # After 200 epochs the difference is 8.6 nats, and 14 % of the pixels.
    assert observed.mean() > zeros.mean() + 2
    assert right > fewer + 0.05


@pytest.mark.slow
def test_labels_follow_from_evidence_by_bayes_rule():
    given, labels, _ = load("conditional").train(epochs=40, num_test=100, num_particles=50)
    # One in ten is chance. A standard error is 5 % at one half.
    assert (given.argmax(0) == labels).double().mean() > 0.6


@pytest.mark.slow
def test_imputation_of_a_mixed_table_beats_the_mean():
    _, errors = load("mixed_table").fill_in(epochs=60, num_particles=200)
    numbers = errors.drop("grower").mean()
    assert numbers["imputed"] < 0.9 * numbers["guessed"]
    assert errors.loc["grower", "imputed"] < errors.loc["grower", "guessed"]
