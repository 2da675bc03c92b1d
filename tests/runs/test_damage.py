"""Files with bytes changed, ends cut and other content: an error that names them, or a way out."""

import hashlib
import io
import pickle
import random
import warnings
from contextlib import contextmanager

import pytest
import torch
from helpers.runs import call

from pyrovae import VAE, nets
from pyrovae.runs import Config
from pyrovae.training import checkpoint, fit, outputs

X = torch.bernoulli(torch.full((20, 4), 0.5), generator=torch.Generator().manual_seed(0))


def train(path, epochs, **options):
    torch.manual_seed(0)
    vae = VAE((4,), 1, encoder=nets.MLP(3), decoder=nets.MLP(3))
    fit(vae.model, vae.guide, X, epochs=epochs, checkpoint=path, capture=False, device="cpu",
        **options)  # fmt: skip
    return [p.detach().clone() for p in vae.parameters()]


def spoilt(content, draw):
    """The content with a bit flipped, a part cut off, zeroed, or doubled."""
    kind, place = draw.randrange(4), draw.randrange(len(content))
    changed = bytearray(content)
    if kind == 0:
        changed[place] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del changed[place:]
    elif kind == 2:
        changed[place : place + 40] = bytes(min(40, len(content) - place))
    else:
        changed[place:place] = changed[place : place + 40]
    return bytes(changed)


@pytest.mark.parametrize("times", [15, pytest.param(400, marks=pytest.mark.slow)])
def test_a_damaged_checkpoint_is_found_and_the_one_before_it_used(times, tmp_path, monkeypatch):
    monkeypatch.setattr(outputs.Outputs, "affordable", lambda self: True)  # after each epoch
    path, draw = tmp_path / "state.pt", random.Random(0)
    whole = train(path, 3)
    original, before = path.read_bytes(), checkpoint.previous_of(path).read_bytes()
    for _ in range(times):
        changed = spoilt(original, draw)
        if changed == original:
            continue
        path.write_bytes(changed)
        checkpoint.previous_of(path).unlink(missing_ok=True)
        with pytest.raises(ValueError, match=f"{path} is not a checkpoint of fit"):
            checkpoint.load(path)
        checkpoint.previous_of(path).write_bytes(before)
        state, said = checkpoint.load(path)
        assert state["count"] == 2
        assert "is damaged" in said
    with pytest.warns(UserWarning, match="going on from the checkpoint before it"):
        again = train(path, 3, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))


class Hostile:
    def __reduce__(self):
        return print, ("this code ran",)


@pytest.mark.parametrize("content", ["pickle", "archive", "other"])
def test_a_hostile_checkpoint_runs_nothing(content, tmp_path, capsys):
    """With a right checksum, as a stranger can write it."""
    buffer = io.BytesIO()
    if content == "pickle":
        buffer.write(pickle.dumps(Hostile()))
    else:
        torch.save({"weights": Hostile() if content == "archive" else 3}, buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest().encode()
    path = tmp_path / "state.pt"
    path.write_bytes(b"pyrovae checkpoint 2 " + digest + b"\n" + buffer.getvalue())
    with pytest.raises(ValueError, match=r"not a checkpoint of fit|no checkpoint that fit"):
        train(path, 1, resume=True)
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize("times", [25, pytest.param(500, marks=pytest.mark.slow)])
def test_damaged_configurations(times, tmp_path):
    """Each is a configuration all the same, or a ValueError that names the file."""
    draw = random.Random(1)
    original = str(Config(prior="Vamp", beta={"class_path": "Linear", "init_args": {"steps": 3}}))
    path = tmp_path / "config.yaml"
    for _ in range(times):
        path.write_bytes(spoilt(original.encode(), draw))
        with suppress_named(path):
            Config.load(path)


@contextmanager
def suppress_named(path):
    """No error, or a ValueError that names the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except ValueError as error:
            if str(path) not in str(error):
                raise AssertionError("the error does not name the file") from error


ODD = {
    "prior = 3": "config",
    "prior: 3": "prior",
    "prior: []": "prior",
    "prior: {class_path: 3}": "prior",
    "prior: {init_args: {}}": "prior",
    "prior: {class_path: Vamp, init_args: 3}": "prior",
    "latent_dim: {}": "latent_dim",
    "? [1, 2]\n: 3": "",
    "3: 4": "",
    "epochs: !!python/object/apply:os.system [ls]": "could not determine a constructor",
    "a: *b": "alias",
    "\x00": "",
}


@pytest.mark.parametrize("text", ODD)
def test_odd_configurations_are_one_line(text, tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(text)
    assert call("train --config", tmp_path / "config.yaml") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "config.yaml" in line
    assert ODD[text] in line
