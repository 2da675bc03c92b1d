"""A run that ends at any step and goes on is the run that never ended, bit for bit."""

import os
import random
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from pyrovae import VAE, estimators, likelihoods, nets, schedules
from pyrovae.data import resample
from pyrovae.schedules import Schedule
from pyrovae.signals import Terminated
from pyrovae.testing import LinearGaussian
from pyrovae.training import checkpoint, fit, outputs

X = torch.rand(67, 6, generator=torch.Generator().manual_seed(2))  # a last batch of seven
STEPS = 7  # of an epoch
EPOCHS = 3


class Killed(BaseException):
    """As a process that is killed: nothing in the package catches it."""


class Until(Schedule):
    """A learning rate that lives to some step."""

    def __init__(self, last=None, act=None):
        self.last, self.act = last, act

    def __call__(self, step):
        if step == self.last:
            self.act()
        return 1e-2


def kill():
    raise Killed


def numpy_noise(x):
    noise = np.random.randn(*x.shape).astype(np.float32)  # noqa: NPY002
    return x + 0.1 * torch.from_numpy(noise)


def torch_noise(x):
    return x + 0.1 * torch.randn_like(x) + 0.01 * random.random()


class Dropping(nn.Module):
    """An encoder with dropout and running statistics."""

    def __init__(self, outputs):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, outputs)
        )

    def forward(self, x):
        return self.net(x)


class Augmented(Dataset):
    """Items that are drawn anew each time, by Python's generator and NumPy's."""

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i] + 0.1 * random.random() + 0.1 * np.random.rand()  # noqa: NPY002


def gaussian(**parts):
    options = {"encoder": nets.MLP(8), "decoder": nets.MLP(8), **parts}
    return VAE((6,), 2, likelihood=likelihoods.Gaussian(1.0), **options)


def own_generator():
    return DataLoader(
        TensorDataset(X), 10, shuffle=True, generator=torch.Generator().manual_seed(5)
    )


KINDS = {
    "captured": (gaussian, {}),
    "eager": (gaussian, {"capture": False}),
    "in order, last batch left out": (gaussian, {"shuffle": False, "drop_last": True}),
    "dropout and batch norm": (lambda: gaussian(encoder=Dropping(4)), {}),
    "augmentation from NumPy": (gaussian, {"transform": numpy_noise}),
    "augmentation from torch and Python": (gaussian, {"transform": torch_noise}),
    "dynamic binarisation": (
        lambda: VAE((6,), 2, encoder=nets.MLP(8), decoder=nets.MLP(8)), {"transform": resample},
    ),
    "GECO": (gaussian, {"beta": schedules.GECO(-9.0)}),
    "ControlVAE": (gaussian, {"beta": schedules.ControlVAE(2.0)}),
    "warm-up": (gaussian, {"beta": schedules.Linear(0.0, 1.0, steps=10)}),
    "DReG": (gaussian, {"estimator": estimators.DReG(num_particles=4)}),
    "SGD with momentum": (
        gaussian, {"optimizer": lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9)},
    ),
    "early stopping": (gaussian, {"patience": 1, "valid": X[:20]}),
    "a loader": (gaussian, {"train": lambda: DataLoader(TensorDataset(X), 10, shuffle=True)}),
    "a loader with a generator of its own": (gaussian, {"train": own_generator}),
    "a loader that augments": (
        gaussian, {"train": lambda: DataLoader(Augmented(), 10, shuffle=True), "capture": False},
    ),
}  # fmt: skip


def run(kind, path, *, last=None, act=kill, **more):
    """Weights, buffers and history of a run, or None if it ended before."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    make, options = KINDS[kind]
    options = {"epochs": EPOCHS, "batch_size": 10, "device": "cpu", **options, **more}
    train = options.pop("train", lambda: X)()
    vae = make()
    try:
        history = fit(vae.model, vae.guide, train, lr=Until(last, act), checkpoint=path, **options)
    except Killed:
        return None
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in history]
    return {name: t.clone() for name, t in vae.state_dict().items()}, repr(rows)


def assert_same(one, other):
    assert one[1] == other[1]
    for name, tensor in one[0].items():
        assert torch.equal(tensor, other[0][name]), name


QUICK = ("dropout and batch norm", "augmentation from NumPy", "dynamic binarisation", "GECO",
         "early stopping", "a loader that augments")  # fmt: skip


@pytest.mark.parametrize("kind", ["captured", *QUICK])
def test_killed_within_an_epoch(kind, tmp_path):
    """Once in the first epoch, and once just before the smaller last batch of the second."""
    how = {} if kind == "captured" else {"capture": False}  # a graph takes longer than the steps
    whole = run(kind, tmp_path / "whole.pt", **how)
    for last in (4, 2 * STEPS - 1):
        cut = {"last": last, "checkpoint_every": 3, "resume": True, **how}
        assert run(kind, tmp_path / "cut.pt", **cut) is None
    assert_same(whole, run(kind, tmp_path / "cut.pt", resume=True, **how))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_step(kind, tmp_path):
    whole = run(kind, tmp_path / "whole.pt")
    for last in range(1, EPOCHS * STEPS, 2):
        path = tmp_path / f"{last}.pt"
        if run(kind, path, last=last, checkpoint_every=1 + last % 4) is None:
            assert_same(whole, run(kind, path, resume=True))


COMPILED = """
import sys
from pathlib import Path

import torch

sys.path.insert(0, {tests!r})
from pyrovae import nets
from pyrovae.compilation import inductor
from training import test_resume as t

torch.set_num_threads(2)
built, compile_graph = [], inductor.compile_graph
inductor.switch_after = lambda *_: 5
inductor.compile_graph = lambda graph, *rest: built.append(graph) or compile_graph(graph, *rest)
wide = lambda: t.gaussian(encoder=nets.MLP(256, 256), decoder=nets.MLP(256))
t.KINDS["wide"] = wide, {{"clip_norm": 0.1}}  # sums that two threads share
kind, folder = sys.argv[1], Path(sys.argv[2])
whole = t.run(kind, folder / "whole.pt")
assert [graph.kind for graph in built] == ["compiled"]
for last in (3, 6, 7, 13):
    path = folder / f"{{last}}.pt"
    assert t.run(kind, path, last=last, checkpoint_every=1) is None
    built.clear()
    t.assert_same(whole, t.run(kind, path, resume=True))
    assert [graph.kind for graph in built] == ["compiled"]
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wide", "warm-up", "DReG", "dropout and batch norm"])
def test_killed_while_compiled(kind, tmp_path):
    """Neither which batch shape is compiled, nor for how many threads, may depend on where the run
    goes on.
    """
    code = COMPILED.format(tests=str(Path(__file__).parents[1]))
    command = [sys.executable, "-c", code, kind, str(tmp_path)]
    environment = {**os.environ, "PYROVAE_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_saves(number, tmp_path):
    whole = run("eager", tmp_path / "whole.pt")
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(
            KeyboardInterrupt, match="stopped at step 10 and saved; resume=True"
        ) as e:
            run("eager", tmp_path / "cut.pt", last=9, act=lambda: signal.raise_signal(number))
        assert (type(e.value) is Terminated) == (number == signal.SIGTERM)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) == before[1]
    finally:
        signal.signal(signal.SIGINT, before[0])
    assert_same(whole, run("eager", tmp_path / "cut.pt", resume=True))


def test_a_second_signal_stops_at_once(tmp_path):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            run("eager", tmp_path / "cut.pt", last=9, act=twice)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "saved" not in str(caught.value)
    state, _ = checkpoint.load(tmp_path / "cut.pt")
    assert state["count"] == STEPS  # that of the epoch before


def test_signals_are_left_alone_in_other_threads_and_without_a_checkpoint(tmp_path):
    seen = []

    def look():
        seen.append([signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)])

    expected = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    thread = threading.Thread(target=lambda: run("eager", tmp_path / "thread.pt", last=2, act=look))
    thread.start()
    thread.join()
    run("eager", None, last=2, act=look)
    assert seen == [expected, expected]


def test_a_signal_that_is_ignored_stays_so(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        found = run("eager", tmp_path / "cut.pt", last=9, act=lambda: signal.raise_signal(2))
    finally:
        signal.signal(signal.SIGINT, before)
    assert_same(run("eager", tmp_path / "whole.pt"), found)


def test_a_signal_during_validation(tmp_path):
    """The steps of the epoch are not taken again, and the random state is that of training."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    sent, taken = [], []

    class Sending(Dataset):
        def __len__(self):
            return 20

        def __getitem__(self, i):
            if not sent and len(taken) > STEPS:  # the first epoch has been trained
                sent.append(signal.raise_signal(signal.SIGINT))
            return X[i]

    def counted(x):
        taken.append(len(x))
        return x

    KINDS["validated"] = gaussian, {"valid": Sending(), "transform": counted, "capture": False}
    try:
        with pytest.raises(KeyboardInterrupt, match="stopped at step 7 and saved"):
            run("validated", tmp_path / "cut.pt")
        assert len(sent) == 1
        found = run("validated", tmp_path / "cut.pt", resume=True)
        assert_same(run("validated", tmp_path / "whole.pt"), found)
    finally:
        signal.signal(signal.SIGINT, before)
        del KINDS["validated"]


def test_how_often_a_checkpoint_is_written(tmp_path, monkeypatch):
    written = []
    save = checkpoint.save
    monkeypatch.setattr(
        checkpoint, "save", lambda state, path: (written.append(state["count"]), save(state, path))
    )
    monkeypatch.setattr(outputs.Outputs, "affordable", lambda self: True)
    run("eager", tmp_path / "a.pt", checkpoint_every=3)
    assert written == [3, 6, 7, 10, 13, 14, 17, 20, 21]
    written.clear()
    run("eager", tmp_path / "b.pt", checkpoint_every=timedelta(microseconds=1))
    assert written == sorted([*range(1, 22), 7, 14, 21])
    written.clear()
    run("eager", tmp_path / "c.pt", checkpoint_every=timedelta(days=1))
    assert written == [7, 14, 21]
    for wrong in (0, -3, True, 1.5, timedelta(0), "10 minutes"):
        with pytest.raises(ValueError, match="checkpoint_every must be"):
            run("eager", tmp_path / "d.pt", checkpoint_every=wrong)


def test_epochs_that_are_short_beside_a_checkpoint_are_not_each_followed_by_one(
    tmp_path, monkeypatch
):
    now = 0.0
    monkeypatch.setattr(outputs.time, "monotonic", lambda: now)
    kept = outputs.Outputs(checkpoint=tmp_path / "a.pt")
    assert kept.affordable()  # nothing has been saved
    kept.saved(0.2)
    assert not kept.affordable()
    now = 19.9  # 0.2 s are more than a hundredth of it
    assert not kept.affordable()
    now = 20.1
    assert kept.affordable()


@pytest.mark.parametrize("last", [5, None])
def test_the_first_and_the_last_epoch_are_always_saved(tmp_path, monkeypatch, last):
    written = []
    save = checkpoint.save
    monkeypatch.setattr(
        checkpoint, "save", lambda state, path: (written.append(state["count"]), save(state, path))
    )
    monkeypatch.setattr(outputs, "_SHARE", 0.0)  # no time for others
    oracle = LinearGaussian(shift=2.0)
    history = fit(
        oracle.model,
        oracle.guide,
        oracle.sample(20),
        epochs=9,
        batch_size=10,
        capture=False,
        checkpoint=tmp_path / "a.pt",
        callback=lambda row: row["epoch"] == last,  # stops early
    )
    assert written == [2, 2 * (last or 9)]
    assert len(checkpoint.load(tmp_path / "a.pt")[0]["rows"]) == len(history) == (last or 9)


def test_denormal_numbers_are_looked_for_at_the_same_steps(tmp_path, monkeypatch):
    events = []

    class Noted(Until):
        def __call__(self, step):
            events.append(step)
            return super().__call__(step)

    monkeypatch.setattr("pyrovae.training.loop.CHECK_EVERY", 3)
    monkeypatch.setattr("pyrovae.svi.step.flush_denormals", lambda _: events.append("look"))
    monkeypatch.setattr(sys.modules[__name__], "Until", Noted)
    run("GECO", tmp_path / "whole.pt", capture=False)
    whole, last = events[1:], STEPS + 4  # the first is a check of the schedule
    assert whole[:9] == ["look", 0, 1, 2, "look", 3, 4, 5, "look"]
    assert run("GECO", tmp_path / "cut.pt", capture=False, last=last, checkpoint_every=4) is None
    events.clear()
    run("GECO", tmp_path / "cut.pt", capture=False, resume=True)
    assert len(events) > 9
    assert events[1:] == whole[1 - len(events) :]


def test_a_missing_folder_is_told_before_training(tmp_path):
    for files in ({"checkpoint": tmp_path / "no" / "state.pt"}, {"log": tmp_path / "no" / "log"}):
        vae = gaussian()
        with pytest.raises(FileNotFoundError, match=r"There is no folder .*no to write the"):
            fit(vae.model, vae.guide, X, lr=Until(0, kill), **files)


KILLABLE = """
import sys

sys.path.insert(0, {tests!r})
from pathlib import Path
from training import test_resume

print("begun", flush=True)
test_resume.run(sys.argv[1], Path(sys.argv[2]), resume=True, checkpoint_every=1)
print("done", flush=True)
"""


def kill_at_random(kind, path, times, draw):
    """Kill a process that trains, again and again at random moments, until one comes through."""
    code = KILLABLE.format(tests=str(Path(__file__).parents[1]))
    for _ in range(times):
        process = subprocess.Popen([sys.executable, "-c", code, kind, str(path)],
                                   stdout=subprocess.PIPE, text=True)  # fmt: skip
        assert process.stdout.readline() == "begun\n"
        try:
            process.wait(draw.uniform(0.0, 1.5))
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_by_the_system_at_random_moments(kind, tmp_path):
    """SIGKILL at 7 moments in each of 16 kinds of training: 112 in all."""
    kill_at_random(kind, tmp_path / "cut.pt", 7, random.Random(kind))
    assert_same(run(kind, tmp_path / "whole.pt"), run(kind, tmp_path / "cut.pt", resume=True))
