"""Who works on which run of a sweep: what is finished is not repeated, and nothing is lost."""

import json
import os

import optuna
import pytest

from pyrovae.runs.sweeps import queue as queues
from pyrovae.runs.sweeps.declaration import Declaration
from pyrovae.runs.sweeps.queue import Queue, latest
from pyrovae.runs.sweeps.study import open_study

GRID = {"prior": ["StandardNormal", "Vamp"], "lr": [0.1, 0.2], "seed": 2}
STATES = optuna.trial.TrialState


@pytest.fixture(params=["journal", "sqlite"])
def storage(request, tmp_path):
    return None if request.param == "journal" else f"sqlite:///{tmp_path / 'study.db'}"


def opened(tmp_path, given=None, storage=None):
    declaration = Declaration.of(given or GRID)
    queue = Queue(open_study(tmp_path, storage, declaration), declaration)
    queue.fill()
    return queue


def finish(queue, trial, value=1.0):
    queue.study.tell(trial, value)


def runs_of(queue):
    return [(t.params["prior"], t.params["lr"], t.user_attrs["seed"]) for t in queue.trials()]


def test_every_run_once_and_every_model_before_a_second_seed(tmp_path, storage):
    queue = opened(tmp_path, storage=storage)
    expected = [(p, lr, s) for s in (0, 1) for p in ("StandardNormal", "Vamp") for lr in (0.1, 0.2)]
    assert runs_of(queue) == expected
    taken = []
    while (trial := queue.claim()) is not None:
        taken.append(trial.number)
        finish(queue, trial)
    assert taken == list(range(8))
    again = opened(tmp_path, storage=storage)
    assert len(again.trials()) == 8
    assert again.claim() is None


def test_workers_never_share_a_run(tmp_path, storage):
    first, second = opened(tmp_path, storage=storage), opened(tmp_path, storage=storage)
    taken = [queue.claim().number for _ in range(4) for queue in (first, second)]
    assert sorted(taken) == list(range(8))
    assert first.claim() is None


def test_new_values_and_seeds_are_added_and_nothing_is_repeated(tmp_path):
    queue = opened(tmp_path)
    while (trial := queue.claim()) is not None:
        finish(queue, trial)
    more = opened(tmp_path, {**GRID, "prior": [*GRID["prior"], "Flow"], "seed": 3})
    new = [t for t in more.trials() if t.state == STATES.WAITING]
    assert len(more.trials()) == 3 * 2 * 3
    assert len(new) == 18 - 8
    assert more.claim().params == {"prior": "Flow", "lr": 0.1}


def test_another_sweep_in_the_folder_is_refused(tmp_path):
    opened(tmp_path)
    with pytest.raises(ValueError, match="was declared with another epochs"):
        opened(tmp_path, {**GRID, "epochs": 3})
    with pytest.raises(ValueError, match="was declared with another latent_dim"):
        opened(tmp_path, {**GRID, "latent_dim": [2, 4]})


def test_the_run_of_a_dead_process_goes_on(tmp_path, storage):
    queue = opened(tmp_path, storage=storage)
    trial = queue.claim()
    trial.set_user_attr("run", "000-folder")
    trial.report(-3.0, 5)
    trial.set_user_attr("worker", {**queue.name, "pid": 2**22 + 1})  # beyond the largest there is
    other = opened(tmp_path, storage=storage)
    other.take_up_lost()
    (copy,) = [t for t in other.trials(STATES.WAITING) if t.user_attrs.get("deaths")]
    assert copy.user_attrs["run"] == "000-folder"
    assert copy.user_attrs["deaths"] == [5]
    assert copy.intermediate_values == {5: -3.0}
    assert copy.params == trial.params
    assert len(latest(other.trials())) == 8
    other.take_up_lost()
    assert len(other.trials()) == 9


def test_the_number_of_a_dead_process_may_be_given_again(tmp_path):
    """As the first process of a container that was started again."""
    queue = opened(tmp_path)
    trial = queue.claim()
    trial.set_user_attr("worker", {**queue.name, "pid": os.getppid(), "started": "1 before"})
    other = Queue(queue.study, queue.declaration)
    other.take_up_lost()
    assert len(other.trials()) == 9


def test_a_worker_that_closed_or_is_silent_is_lost(tmp_path, monkeypatch):
    queue = opened(tmp_path)
    trial = queue.claim()
    other = Queue(queue.study, queue.declaration)
    other.take_up_lost()
    assert len(other.trials()) == 8  # it lives in this process
    trial.set_user_attr("worker", {**queue.name, "host": "elsewhere"})
    other.take_up_lost()
    assert len(other.trials()) == 8  # the other machine gave a sign of life just now
    monkeypatch.setattr(queues, "GRACE", -1.0)
    other.take_up_lost()
    assert len(other.trials()) == 9
    monkeypatch.undo()
    second = queue.claim()
    queue.close()
    other.take_up_lost()
    assert other.study.trials[second.number].state == STATES.FAIL


def test_a_run_that_kills_its_process_is_given_up(tmp_path):
    queue = opened(tmp_path, {"lr": [0.1]})
    for _ in range(3):
        trial = queue.claim()
        queue.put_back(queue.study.trials[trial.number], died=True)
    assert queue.claim() is None
    (last,) = latest(queue.trials()).values()
    assert last.state == STATES.FAIL
    assert "The process died 3 times after epoch 0" in last.user_attrs["reason"]
    queue.fill()
    assert queue.claim() is None
    queue.fill(retry_failed=True)
    assert queue.claim() is not None


def test_a_run_that_gets_further_each_time_is_not_given_up(tmp_path):
    queue = opened(tmp_path, {"lr": [0.1]})
    for step in range(1, 6):
        trial = queue.claim()
        trial.report(1.0, step)
        queue.put_back(queue.study.trials[trial.number], died=True)
    assert queue.claim() is not None


def test_a_run_that_waits_twice_is_trained_once(tmp_path):
    """Two machines that start in the same second may both add the runs."""
    queue = opened(tmp_path, {"lr": [0.1, 0.2]})
    for trial in queue.trials():
        copy = optuna.create_trial(
            state=STATES.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs=trial.user_attrs,
        )
        queue.study.add_trial(copy)
    done = []
    while (trial := queue.claim()) is not None:
        done.append(trial.params["lr"])
        finish(queue, trial)
    assert done == [0.1, 0.2]
    assert len(latest(queue.trials())) == 2


def test_half_a_line_of_a_full_disk_is_cut_off(tmp_path):
    queue = opened(tmp_path)
    finish(queue, queue.claim())
    journal = tmp_path / "study.journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole + json.dumps({"op_code": 6}).encode()[:7])
    again = opened(tmp_path)
    assert len(again.trials(STATES.COMPLETE)) == 1
    assert again.claim() is not None
    assert not (tmp_path / "study.journal.lock").exists()


def test_reading_needs_a_study_and_writes_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no study\.journal.*give storage="):
        open_study(tmp_path, None)
    assert not [*tmp_path.iterdir()]


SEARCH = {
    "lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "prior": ["StandardNormal", "Vamp"],
    "sampler": {"class_path": "TPESampler", "init_args": {"n_startup_trials": 2}},
    "trials": 4,
    "seed": 2,
}


def test_a_sampler_draws_and_every_draw_gets_all_seeds(tmp_path):
    queue = opened(tmp_path, SEARCH)
    found = []
    while (trial := queue.claim()) is not None:
        found.append((trial.params["lr"], trial.params["prior"], trial.user_attrs["seed"]))
        finish(queue, trial, -abs(trial.params["lr"] - 0.003))
        if len(found) == 3:  # interrupted
            queue.close()
            queue = opened(tmp_path, SEARCH)
    assert len(found) == 8
    assert len({lr for lr, _, _ in found}) == 4
    assert all(1e-4 <= lr <= 1e-2 for lr, _, _ in found)
    assert sorted(seed for _, _, seed in found) == [0] * 4 + [1] * 4


def test_two_workers_draw_no_more_than_declared(tmp_path):
    first, second = opened(tmp_path, SEARCH), opened(tmp_path, SEARCH)
    found = 0
    while True:
        taken = [trial for queue in (first, second) if (trial := queue.claim()) is not None]
        for trial in taken:
            finish(first, trial)
        found += len(taken)
        if not taken:
            break
    assert found == 8


def test_unknown_samplers_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"Optuna has no 'TPE' here\. Choose one of .*TPESampler"):
        opened(tmp_path, {**SEARCH, "sampler": "TPE"})
    assert not [*tmp_path.iterdir()]
    with pytest.raises(ValueError, match="Without a sampler a sweep is a grid"):
        opened(tmp_path, {**SEARCH, "sampler": "GridSampler"})
    wrong = {"class_path": "TPESampler", "init_args": {"startup": 2}}
    with pytest.raises(ValueError, match=r"TPESampler: .*startup"):
        opened(tmp_path, {**SEARCH, "sampler": wrong})
