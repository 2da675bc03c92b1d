"""Sweeps on digits: each run is what ``pv.train`` gives, and the table says what may be said."""

import csv
import re

import numpy as np
import optuna
import pytest
from helpers.browser import PHONE, in_browser, width_on_a_phone
from helpers.runs import assert_same_run, call
from helpers.sweeps import TINY, VAMP
from matplotlib import pyplot

import pyrovae as pv
from pyrovae.runs import Sweep, pipeline
from pyrovae.runs.sweeps.study import open_study

# The sphere does not go with a normal posterior: its runs fail.
PRIORS = {**TINY, "prior": ["StandardNormal", VAMP, "HypersphericalUniform"], "seed": 2}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps") / "priors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "report", lambda *_: None)
        return pv.sweep(PRIORS, folder)


def test_each_run_is_what_train_gives(swept, tmp_path, quick):
    found = {(row.values["prior"], row.seed): row for row in swept.rows}
    row = found["Vamp(num_components=5)", 1]
    config = {k: v for k, v in TINY.items() if k != "prior"}
    run = pv.train(pv.Config(**config, prior=VAMP, seed=1), tmp_path / "run")
    assert_same_run(row.path, run.path)
    assert row.evidence is not None
    np.testing.assert_array_equal(
        row.evidence.log_marginal, pv.Evidence.load(run.evidence).log_marginal
    )
    vae = pv.load_run(row.path, device="cpu")
    assert row.facts["parameters"] == sum(p.numel() for p in vae.parameters())
    assert "2 epochs in" in (swept.folder / "logs" / f"{row.path.name}.txt").read_text()


def test_models_are_compared_over_their_seeds(swept):
    (group,) = swept.groups
    evidence = {name: [row.evidence for row in rows] for name, rows in group.models.items()}
    assert {name: len(runs) for name, runs in evidence.items()} == {
        "prior=StandardNormal": 2,
        "prior=Vamp(num_components=5)": 2,
    }
    expected = pv.compare_models(evidence)
    assert group.comparison.dataset.identical(expected.dataset)
    assert group.comparison.over_seeds


def test_a_run_that_fails_is_a_row_with_its_reason(swept):
    failed = [row for row in swept.rows if row.state == "fail"]
    assert [row.seed for row in failed] == [0, 1]
    assert all("HypersphericalUniform" in row.reason for row in failed)
    assert "6 runs, 4 complete, 2 failed" in repr(swept)
    assert failed[0].reason in repr(swept)
    log = next((swept.folder / "logs").glob("*Hyperspherical*0.txt")).read_text()
    assert "Traceback" in log


def test_nothing_finished_is_repeated(swept, quick, capsys):
    files = {path: path.stat().st_mtime_ns for path in swept.folder.rglob("*.safetensors")}
    again = pv.sweep(PRIORS, swept.folder)
    assert ": 0 runs to train" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in swept.folder.rglob("*.safetensors")} == files
    assert repr(again) == repr(swept) == repr(Sweep(swept.folder))


def test_csv_has_a_line_for_each_run_and_each_model(swept):
    with (swept.folder / "sweep.csv").open(newline="") as file:
        lines = [*csv.DictReader(file)]
    runs = [line for line in lines if line["kind"] == "run"]
    models = [line for line in lines if line["kind"] == "model"]
    assert (len(runs), len(models)) == (6, 2)
    (group,) = swept.groups
    for line in models:
        row = group.comparison.dataset.sel(model=line["model"])
        assert float(line["log_px"]) == float(row["mean"])
        assert float(line["seeds_error"]) == float(row["seeds_error"])
        assert line["num_seeds"] == "2"
    for line, row in zip(runs, swept.rows, strict=True):
        assert line["prior"] == row.values["prior"]
        assert (swept.folder / line["folder"] == row.path) == (row.path is not None)
        if row.evidence is not None:
            assert float(line["log_px"]) == row.evidence.mean()


def test_page_holds_its_figures_and_names_the_result(swept):
    text = (swept.folder / "sweep.html").read_text(encoding="utf-8")
    assert len(re.findall(r"base64,", text)) == 2  # each is light or dark as the page is
    assert not re.search(r"(src|srcset)=\"(?!data:)", text)
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text
    assert "HypersphericalUniform" in text
    for model in swept.groups[0].models:
        assert model in text
    assert {p.name for p in swept.folder.glob("*.png")} == {
        "forest.png",
        "time.png",
    }


@in_browser
def test_the_page_is_not_wider_than_a_phone(swept, tmp_path):
    page = tmp_path / "sweep.html"
    text = (swept.folder / "sweep.html").read_text(encoding="utf-8")
    # A method may be a word that is wider than a phone.
    method = "ImportanceSampling(num_particles="
    assert method in text
    page.write_text(text.replace(method, method + "0" * 30), encoding="utf-8")
    assert width_on_a_phone(page, tmp_path) == PHONE


def test_a_notebook_shows_tables_and_a_figure(swept):
    (group,) = swept.groups
    row = group.comparison.dataset.isel(model=1, reference=0)
    html = swept._repr_html_()
    assert f">{float(row['difference']):.3f}</td>" in html
    assert html.count(">failed. ") == 2
    axes = swept.plot()
    assert [text.get_text() for text in axes.texts] == group.comparison.names
    strokes = axes.get_lines()[1].get_xdata()
    best = group.means[group.comparison.best]
    np.testing.assert_allclose(strokes, np.array(best) - np.mean(best))
    pyplot.close("all")


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_optuna_opens_the_study(swept):
    from optuna.storages.journal import JournalFileBackend
    from optuna.visualization import matplotlib as plots

    journal = JournalFileBackend(str(swept.folder / "study.journal"))
    study = optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(journal))
    assert len(study.trials) == 6
    best = max((row for row in swept.rows if row.evidence), key=lambda r: r.facts["valid_bound"])
    assert study.best_value == best.facts["valid_bound"]
    assert study.best_trial.user_attrs["seed"] == best.seed
    assert plots.plot_optimization_history(study) is not None
    assert plots.plot_slice(study) is not None
    assert plots.plot_intermediate_values(study) is not None


@pytest.mark.parametrize("missing", ["evidence.nc", "everything"])
def test_a_run_that_was_killed_late_or_early_is_finished(missing, swept, tmp_path, quick):
    """After its weights were saved, or before its first epoch: its folder is as it was left."""
    import shutil

    folder = tmp_path / "sweep"
    shutil.copytree(swept.folder, folder)
    study = open_study(folder, None)
    trial = next(t for t in study.trials if t.user_attrs.get("seed") == 0)
    copy = optuna.create_trial(
        state=optuna.trial.TrialState.WAITING,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={"seed": 7, "run": trial.user_attrs["run"]},
    )
    study.add_trial(copy)
    run = folder / "runs" / trial.user_attrs["run"]
    for path in run.iterdir():
        if path.name == missing or (missing == "everything" and path.name != "config.yaml"):
            path.unlink()
    found = pv.sweep(PRIORS, folder)
    row = next(row for row in found.rows if row.seed == 7)
    assert row.state == "complete"
    assert row.evidence is not None
    assert (row.path == run) == (missing == "evidence.nc")
    if missing == "everything":
        # That of the first trial is gone; the others are shown all the same.
        (lost,) = [row for row in found.rows if row.path == run]
        assert (lost.state, lost.evidence) == ("fail", None)
        assert "Cannot read" in lost.reason
        assert sum(row.evidence is not None for row in found.rows) == 4


def test_one_seed_ranks_no_models_and_a_loss_that_is_not_finite_is_a_row(tmp_path, quick):
    found = pv.sweep({**TINY, "lr": [1e-3, 1e-2, 1e30], "epochs": 1}, tmp_path / "sweep")
    (group,) = found.groups
    assert group.comparison.ranks() == ["-", "-"]
    assert "One training seed shows weights, not a model" in repr(found)
    page = (tmp_path / "sweep" / "sweep.html").read_text("utf-8")
    assert "One training seed a model ranks no models" in page
    (row,) = [row for row in found.rows if row.state == "fail"]
    assert row.values == {"lr": 1e30}
    assert row.reason.startswith("Training stopped")
    assert row.reason.split(":")[0] in page


def test_a_pruner_ends_runs_on_the_validation_bound(tmp_path, quick):
    never = {"class_path": "ThresholdPruner", "init_args": {"lower": 0.0}}
    found = pv.sweep({**TINY, "pruner": never, "lr": [1e-3, 1e-2]}, tmp_path / "sweep")
    assert [row.state for row in found.rows] == ["pruned", "pruned"]
    page = (tmp_path / "sweep" / "sweep.html").read_text("utf-8")
    assert "No run has held-out evidence yet" in page
    (trial, _) = found.study.trials
    assert list(trial.intermediate_values) == [1]
    assert "2 pruned" in repr(found)


def test_what_may_not_be_compared_stands_apart_and_is_named(tmp_path, quick):
    given = {**TINY, "binarize": ["threshold", "stochastic"], "epochs": 1}
    found = pv.sweep(given, tmp_path / "sweep")
    assert [len(group.models) for group in found.groups] == [1, 1]
    text = repr(found)
    assert "Models of different groups differ in test data: their numbers must not be" in text
    page = (tmp_path / "sweep" / "sweep.html").read_text("utf-8")
    assert "their numbers must not be compared" in page


def test_densities_and_probabilities_of_the_same_levels_stand_apart(tmp_path, quick):
    levels = {"class_path": "DiscretizedLogistic", "init_args": {"num_levels": 17}}
    given = {**TINY, "likelihood": ["Gaussian", levels], "epochs": 1}
    found = pv.sweep(given, tmp_path / "sweep")
    assert [group.about["the measure (probability or density)"] for group in found.groups] == [
        "density",
        "probability",
    ]


def test_on_the_command_line(swept, tmp_path, monkeypatch, quick, capsys):
    monkeypatch.chdir(tmp_path)
    assert call("sweep none.yaml") == 1
    (tmp_path / "bad.yaml").write_text("prior: [StandardNormal, Vampp]\n")
    assert call("sweep bad.yaml") == 1
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    (tmp_path / "good.yaml").write_text("prior: [StandardNormal, Vamp]\n")
    assert call("sweep good.yaml --out notes") == 1
    assert call("sweep good.yaml --jobs 0") == 1
    (tmp_path / "far.yaml").write_text("data: nowhere.npz\nprior: [StandardNormal, Vamp]\n")
    assert call("sweep far.yaml") == 1
    lines = capsys.readouterr().err.splitlines()
    expected = [
        "There is no sweep at none.yaml",
        "prior: There is no class 'Vampp'. Did you mean Vamp?",
        "notes is not empty, and holds no sweep",
        "jobs must be a positive integer",
        "nowhere.npz",
    ]
    for line, message in zip(lines, expected, strict=True):
        assert message in line
    assert not (tmp_path / "sweeps").exists()
    assert call("sweep", swept.folder / "sweep.yaml", "--out", swept.folder) == 0
    shown = capsys.readouterr().out
    assert "6 runs, 4 complete, 2 failed" in shown
    assert "sweep.html" in shown
