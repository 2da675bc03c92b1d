"""Callbacks of ``fit`` write to the trackers themselves, which are then read back."""

import math
from importlib import util

import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae import likelihoods, nets, training

SHOWN = set(pv.History().keys()) - {"step", "valid_bound"}  # without validation data it is NaN


def fit(callback):
    """Two epochs of four steps."""
    torch.manual_seed(0)
    vae = pv.VAE(3, 2, likelihood=likelihoods.Gaussian(), encoder=nets.MLP(4), decoder=nets.MLP(4))
    x = torch.randn(32, 3)
    return vae.fit(x, epochs=2, batch_size=8, capture=False, callback=callback)


def test_tensorboard_holds_the_rows(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = fit(training.TensorBoard(tmp_path / "board"))
    events = EventAccumulator(str(tmp_path / "board")).Reload()
    assert set(events.Tags()["scalars"]) == SHOWN
    for name in SHOWN:
        found = events.Scalars(name)
        assert [event.step for event in found] == [4, 8]
        # TensorBoard keeps single precision.
        np.testing.assert_allclose([event.value for event in found], history[name], rtol=1e-6)


@pytest.mark.parametrize(
    "place",
    [
        "file://{}/runs",
        # MLflow's own default; it makes some fifty tables first.
        pytest.param("sqlite:///{}/mlflow.db", marks=pytest.mark.slow),
    ],
)
def test_mlflow_holds_the_rows_in_local_files(place, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")  # tests use no network
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = pytest.importorskip("mlflow", reason="needs pip install 'pyrovae[mlflow]'")
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    try:
        mlflow.set_tracking_uri(place.format(tmp_path))
        with pytest.raises(ValueError, match=r"Call mlflow\.start_run\(\) first"):
            training.MLflow()
        with mlflow.start_run() as run:
            history = fit(training.MLflow())
        found = mlflow.MlflowClient()
        assert found.get_run(run.info.run_id).info.status == "FINISHED"
        assert set(found.get_run(run.info.run_id).data.metrics) == SHOWN
        for name in SHOWN:
            metrics = found.get_metric_history(run.info.run_id, name)
            assert [metric.step for metric in metrics] == [4, 8]
            assert [metric.value for metric in metrics] == [*history[name]]
    finally:
        mlflow.set_tracking_uri(before)


@pytest.mark.slow
def test_wandb_logs_the_rows_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")  # tests use no network
    wandb = pytest.importorskip("wandb", reason="needs pip install 'pyrovae[wandb]'")
    with pytest.raises(ValueError, match=r"Call wandb\.init\(\) first"):
        training.Wandb()
    with wandb.init(project="tests", mode="offline", dir=tmp_path) as run:
        history = fit(training.Wandb())
        assert run.step == 8
        run.log({"after": 1}, step=9)  # a row is whole with the next step
        for name in SHOWN:
            assert run.summary[name] == history[name][-1]


@pytest.mark.parametrize(
    ("tracker", "package", "arguments"),
    [("TensorBoard", "tensorboard", ("board",)), ("MLflow", "mlflow", ()), ("Wandb", "wandb", ())],
)
def test_a_missing_tracker_says_what_to_install(tracker, package, arguments, monkeypatch):
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=rf"pip install 'pyrovae\[{package}\]'"):
        getattr(training, tracker)(*arguments)


def test_a_callback_sees_every_row_and_can_stop_training():
    seen = []

    def watch(row):
        seen.append(row)
        return row["epoch"] == 1

    history = fit(watch)
    assert len(history) == 1
    assert history.stopped_early
    assert set(seen[0]) == set(history.keys())
    assert seen[0]["step"] == 4
    assert math.isnan(seen[0]["valid_bound"])


def test_an_error_in_a_callback_reaches_the_caller():
    def fail(row):
        raise ConnectionError("no server")

    with pytest.raises(ConnectionError, match="no server"):
        fit(fail)
