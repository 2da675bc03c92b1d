"""Small runs, made and read as the command line makes and reads them."""

import json
import sys

import torch
from safetensors.torch import load_file

from pyrovae import nets
from pyrovae.cli import main
from pyrovae.cli.parse import parse
from pyrovae.declare import Declared

TINY = (
    "--limit 60 --epochs 2 --latent_dim 3 --method.num_particles 50 "
    "--encoder.hidden 16 --decoder.hidden 16"
)
"""Options of ``pyrovae train`` for a run of a second or two."""

SMALL = {"encoder": nets.MLP(16), "decoder": nets.MLP(16)}
"""The networks of :data:`TINY`, in Python."""

FILES = {
    "config.yaml",
    "evidence.nc",
    "evidence.png",
    "learning_curve.png",
    "metrics.jsonl",
    "reconstructions.png",
    "report.html",
    "samples.png",
    "weights.safetensors",
}
"""What a finished run of images holds."""


def call(*words):
    """The exit code of a command; texts are split at spaces."""
    return main([word for text in words for word in str(text).split()])


def files_with_classes():
    """The modules of this process that are files with classes of a user's own."""
    return [name for name in sys.modules if name.startswith("pyrovae_file_")]


def forget_files():
    """Be as another process, which has loaded no such file."""
    for name in files_with_classes():
        del sys.modules[name]


def declared(text):
    """The configuration that the options of ``pyrovae train`` declare."""
    return parse("train", text.split())[1]["config"]


def metrics(path):
    """The rows that training logged, without their times."""
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def assert_same_run(left, right):
    """Metrics and weights of two runs are equal, bit for bit."""
    assert metrics(left) == metrics(right)
    mine, other = (load_file(p / "weights.safetensors") for p in (left, right))
    assert mine.keys() == other.keys()
    for name, tensor in mine.items():
        assert torch.equal(tensor, other[name]), name


def assert_same_weights(vae, run):
    """A model has the weights of a run, bit for bit."""
    weights = load_file(run / "weights.safetensors")
    assert weights.keys() == vae.state_dict().keys()
    for name, tensor in vae.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def declaration_of(vae):
    """What a model is made of: its parts as declared, and the name and shape of every tensor."""
    parts = {
        name: repr(part)
        for name, part in vae.named_modules()
        if isinstance(part, Declared) and part is not vae
    }
    return type(vae), parts, {name: tuple(t.shape) for name, t in vae.state_dict().items()}
