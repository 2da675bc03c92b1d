"""What a run wrote is used as it was written, or refused by name."""

import json
import os
import random
import shutil
import stat
import tempfile

import numpy as np
import pytest
import torch
from helpers.runs import TINY, call

import pyrovae as pv
from pyrovae.runs import Run, manifest


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny run on an array file, with the file."""
    folder = tmp_path_factory.mktemp("manifest")
    np.save(folder / "x.npy", np.random.default_rng(0).poisson(2.0, (60, 5)))
    data = f"--data {folder / 'x.npy'} --likelihood Poisson"
    assert call("train", TINY, data, "--out", folder / "run") == 0
    return folder


@pytest.fixture
def copy(trained, tmp_path):
    shutil.copytree(trained / "run", tmp_path / "run")
    return tmp_path / "run"


def test_a_run_lists_what_it_wrote(trained):
    content = json.loads((trained / "run" / "manifest.json").read_text())
    names = {"config.yaml", "weights.safetensors", "evidence.nc", "metrics.jsonl"}
    assert set(content["files"]) == names
    assert content["versions"]["torch"] == str(torch.__version__)
    assert content["data"]["train"]["shape"][1:] == [5]
    for name, facts in content["files"].items():
        assert facts["size"] == (trained / "run" / name).stat().st_size
    assert not (trained / "run" / "lock").exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "config.yaml"])
def test_any_changed_byte_is_found(name, copy):
    original = (copy / name).read_bytes()
    draw = random.Random(0)
    for _ in range(20):
        spoilt = bytearray(original)
        spoilt[draw.randrange(len(spoilt))] ^= 1 << draw.randrange(8)
        (copy / name).write_bytes(draw.choice([spoilt, original[: draw.randrange(len(original))]]))
        with pytest.raises(ValueError, match=f"{name} is not the file that the run wrote"):
            pv.load_run(copy)
    (copy / name).write_bytes(original)
    pv.load_run(copy)


def test_any_changed_byte_of_evidence_is_found(copy):
    file, draw = copy / "evidence.nc", random.Random(0)
    original = file.read_bytes()
    good = pv.Evidence.load(file)
    seal = original.rindex(b"\npyrovae sha256 ")
    for _ in range(20):
        spoilt = bytearray(original)
        spoilt[draw.randrange(seal)] ^= 1 << draw.randrange(8)
        file.write_bytes(spoilt)
        with pytest.raises(ValueError, match="is damaged"):
            pv.Evidence.load(file)
        # Without its seal too, as another program may have written it.
        file.write_bytes(spoilt[: draw.randrange(seal)])
        with pytest.raises(ValueError, match="evidence"):
            pv.Evidence.load(file)
    file.write_bytes(original[:seal])  # read by its own account, like a file of another program
    assert pv.Evidence.load(file).dataset.identical(good.dataset)


def test_a_damaged_file_beside_a_good_one_costs_no_comparison(copy, tmp_path, capsys):
    (copy / "evidence-2.nc").write_bytes((copy / "evidence.nc").read_bytes()[:300])
    assert call("compare", copy, copy / "evidence.nc") == 0
    assert "warning: left out: " in capsys.readouterr().err
    (copy / "evidence.nc").write_bytes(b"nothing")
    assert call("compare", copy, copy / "evidence-2.nc") == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_other_data_than_the_run_was_trained_on(trained, copy, capsys):
    original = np.load(trained / "x.npy")
    try:
        for spoilt, message in (
            (np.concatenate([original, original]), "now holds"),
            (np.where(np.arange(5) == 2, original + 1, original), "other values"),
        ):
            np.save(trained / "x.npy", spoilt)
            for words in ("evaluate", "estimators"):
                assert call(words, copy) == 1
                line = capsys.readouterr().err
                assert "are not those that the run" in line
                assert message in line
    finally:
        np.save(trained / "x.npy", original)
    assert call("evaluate", copy, "--method.num_particles 5") == 0


def test_large_data_are_looked_at_in_parts(monkeypatch):
    monkeypatch.setattr(manifest, "_WHOLE", 100)
    x = torch.arange(10_000.0).reshape(5_000, 2)
    found = manifest.fingerprint(x)
    assert found["rows"] == 4096
    assert found == manifest.fingerprint(x.clone())
    assert found != manifest.fingerprint(x + 1)


def test_manifests_of_other_versions(copy, capsys):
    file = copy / "manifest.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "format": manifest.FORMAT + 1, "files": []}))
    with pytest.raises(ValueError, match=r"newer version of pyrovae: its format is 2.*Update"):
        pv.load_run(copy)
    for spoilt in (
        "{",
        "[]",
        "3",
        '{"format": 1}',
        json.dumps({**content, "files": 3}),
        "[" * 10**5,
    ):
        file.write_text(spoilt)
        with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
            pv.load_run(copy)
    file.unlink()
    with pytest.warns(UserWarning, match=r"has no manifest\.json"):
        pv.load_run(copy)
    assert call("sample", copy) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pyrovae: warning: ")


def test_files_have_the_permissions_of_new_files(tmp_path):
    before = os.umask(0o022)
    try:
        run = pv.train(pv.Config(epochs=1, limit=30, method={
            "class_path": "ImportanceSampling", "init_args": {"num_particles": 3}}),
            tmp_path / "run")  # fmt: skip
    finally:
        os.umask(before)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in run.path.iterdir()}
    assert set(modes.values()) == {0o644}, modes


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to be refused as")
@pytest.mark.parametrize("name", ["weights.safetensors", "config.yaml", "manifest.json"])
def test_a_file_that_may_not_be_read_is_not_called_damaged(name, copy, monkeypatch):
    monkeypatch.chdir("/")  # where the other user may be
    pv.load_run(copy)  # all modules that it takes are read before the user changes
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(copy, f"{folder}/run")
        for path in (folder, f"{folder}/run"):
            os.chmod(path, 0o755)
        os.chmod(f"{folder}/run/{name}", 0o600)
        os.seteuid(65534)
        try:
            with pytest.raises(PermissionError, match=f"{name} may not be read by this user"):
                pv.load_run(f"{folder}/run")
        finally:
            os.seteuid(0)


def test_an_unlisted_file_of_weights_is_refused(copy):
    file = copy / "manifest.json"
    content = json.loads(file.read_text())
    del content["files"]["weights.safetensors"]
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="does not stand in"):
        Run.open(copy)
