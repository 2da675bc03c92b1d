"""Evidence in parts: one process or several, stopped or not, the numbers are the same."""

import signal

import pytest
import torch
from helpers.evaluation import OPTIONS, data, model
from helpers.together import ROOT, finish, start, together

import pyrovae as pv
from pyrovae.evidence.parts import Parts, remove_parts

SCRIPT = ROOT / "tests" / "helpers" / "evaluation.py"


@pytest.fixture(scope="module")
def expected():
    return model().log_marginal(data(), **OPTIONS)


def same(found, expected):
    """Bit for bit, attributes included."""
    return found.dataset.identical(expected.dataset)


def test_parts_give_the_numbers_of_the_whole(expected, tmp_path):
    found = model().log_marginal(data(), parts=tmp_path, **OPTIONS)
    assert same(found, expected)
    assert len(list(tmp_path.iterdir())) > 3  # or there is nothing to share


@pytest.mark.parametrize(
    "method",
    [
        pv.ImportanceSampling(20, target_standard_error=0.2, max_particles=100),
        pv.ImportanceSampling(20, refine_steps=3, prior_share=0.2),
        pytest.param(pv.AIS(num_temperatures=3, num_chains=4), marks=pytest.mark.slow),
    ],
)
def test_every_method_may_be_cut_into_parts(method, tmp_path):
    options = {"method": method, "memory_budget": 2**17}
    expected = model().log_marginal(data(6), **options)
    assert same(model().log_marginal(data(6), parts=str(tmp_path), **options), expected)


def test_a_stopped_estimate_goes_on(expected, tmp_path, monkeypatch):
    """What is finished is not evaluated again; what is damaged is."""
    vae = model()
    written = []
    write = Parts._write

    def stop(self, estimate, *part):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(part)
        return write(self, estimate, *part)

    monkeypatch.setattr(Parts, "_write", stop)
    with pytest.raises(KeyboardInterrupt):
        vae.log_marginal(data(), parts=tmp_path, **OPTIONS)
    first, second, third = sorted(tmp_path.iterdir())
    first.write_bytes(first.read_bytes()[:-9])
    content = bytearray(second.read_bytes())
    content[-5] ^= 1
    second.write_bytes(content)
    monkeypatch.setattr(Parts, "_write", lambda *a: written.append(a[2:]) or write(*a))
    assert same(vae.log_marginal(data(), parts=tmp_path, **OPTIONS), expected)
    assert len(set(written)) == len(written) - 2
    assert third in tmp_path.iterdir()


def test_other_weights_data_methods_and_seeds_have_other_parts(tmp_path):
    vae = model()

    def files(x, **changed):
        before = set(tmp_path.iterdir())
        found = vae.log_marginal(x, parts=tmp_path, **{"num_particles": 5, **changed})
        assert same(found, vae.log_marginal(x, **{"num_particles": 5, **changed}))
        return set(tmp_path.iterdir()) - before

    x = data(9)
    assert files(x)
    assert not files(x)
    assert files(x, seed=1)
    assert files(x, num_particles=6)
    assert not files(x + 0)
    assert files(1 - x)
    with torch.no_grad():
        next(vae.parameters()).mul_(1.5)
    assert files(x)


def test_two_processes_share_the_work(expected, tmp_path):
    together([SCRIPT, tmp_path])
    for rank in range(2):
        assert same(pv.Evidence.load(tmp_path / f"evidence-{rank}.nc"), expected)
    left = list((tmp_path / "parts").iterdir())
    assert len(left) > 3  # or there is nothing to share
    assert not [path for path in left if ".part" in path.name], "a part was not finished"


FAILING = f"""
import os, sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from helpers.evaluation import OPTIONS, data, model
from pyrovae.evidence.parts import Parts

estimate, attempts = Parts.estimate, []

def fails(self, num_data, size, evaluate):
    def work(start, stop):
        if os.environ["RANK"] == "1" and not attempts:
            raise ValueError("these data are odd")
        return evaluate(start, stop)
    return estimate(self, num_data, size, work)

Parts.estimate = fails
for attempts in ([], [1]):
    try:
        found = model().log_marginal(data(), parts=sys.argv[1], **OPTIONS)
        print("found", len(found))
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_a_process_that_fails_does_not_let_the_others_wait(tmp_path):
    """They are told, and the same processes may try again."""
    (waiting, _), (failed, _) = (
        (output, errors) for output, errors, _ in together(["-c", FAILING, tmp_path])
    )
    assert failed.splitlines() == ["ValueError these data are odd", "found 200"]
    told, again = waiting.splitlines()
    assert told.startswith("LostProcess Process 1 could not evaluate its share")
    assert "ValueError: these data are odd" in told
    assert again == "found 200"


def test_own_parts_are_kept_in_memory(expected, tmp_path, monkeypatch):
    """A file that is lost or damaged as soon as it is written does not matter to its process."""
    write = Parts._write

    def lost(self, estimate, *part):
        kept = write(self, estimate, *part)
        self._path(*part).unlink()
        return kept

    monkeypatch.setattr(Parts, "_write", lost)
    assert same(model().log_marginal(data(), parts=tmp_path, **OPTIONS), expected)


def test_removing_parts_leaves_nothing_of_them(tmp_path):
    folder = tmp_path / "parts"
    remove_parts(folder)
    model().log_marginal(data(5), num_particles=5, parts=folder)
    (part,) = folder.iterdir()
    (folder / f".{part.stem}.12.part{part.suffix}").write_bytes(b"half")
    (folder / f"{part.name.partition('-')[0]}-3.failed").write_text("ValueError")
    other = folder / "notes.txt"
    other.write_text("mine")
    remove_parts(folder)
    assert list(folder.iterdir()) == [other]
    other.unlink()
    remove_parts(folder)
    assert not folder.exists()


@pytest.mark.slow
def test_a_job_of_four_goes_on_after_two_were_killed(expected, tmp_path):
    processes = start([SCRIPT, tmp_path, 1, 2], 4)
    for rank in (1, 2):
        assert processes[rank].wait(300) == -signal.SIGKILL
    for process in processes:  # as torchrun ends the others
        process.kill()
    finish(processes)
    assert not list(tmp_path.glob("*.nc"))
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "parts").iterdir()}
    assert len(kept) >= 2
    together([SCRIPT, tmp_path], 4)
    for rank in range(4):
        assert same(pv.Evidence.load(tmp_path / f"evidence-{rank}.nc"), expected)
    finished = [p for p in kept if p.suffix == ".safetensors"]
    assert all(p.stat().st_mtime_ns == kept[p] for p in finished), "a part was evaluated again"


@pytest.mark.slow
def test_processes_with_other_weights_are_refused(tmp_path):
    code = f"""
import os, sys, torch
sys.path.insert(0, {str(ROOT / "tests")!r})
from helpers.evaluation import model, data
vae = model()
torch.nn.init.normal_(next(vae.parameters()), std=1.0 + int(os.environ["RANK"]))
vae.log_marginal(data(5), num_particles=5, parts={str(tmp_path)!r})
"""
    for _, errors, code_ in finish(start(["-c", code], 2)):
        assert code_ == 1
        assert "The processes hold different programs, weights, data, method or seed" in errors
