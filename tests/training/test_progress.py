"""A progress bar that moves within an epoch, and silence where there is no terminal."""

import io
import os
import re
import sys

import pytest
import torch

from pyrovae import VAE, nets
from pyrovae.training import fit, progress

X = torch.bernoulli(torch.full((70, 4), 0.5), generator=torch.Generator().manual_seed(0))


class Terminal(io.StringIO):
    def isatty(self):
        return True


def train(stream, monkeypatch, **options):
    vae = VAE((4,), 1, encoder=nets.MLP(3), decoder=nets.MLP(3))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        fit(
            vae.model, vae.guide, X, epochs=2, batch_size=10, capture=False, device="cpu", **options
        )
    return stream.getvalue()


def test_the_bar_moves_with_every_step(monkeypatch):
    monkeypatch.setattr(progress, "_EVERY", 0.0)  # numbers at each step, whatever the clock says
    shown = train(Terminal(), monkeypatch, progress=True)
    numbers = {int(n) for n in re.findall(r" (\d+)/14 ", shown)}
    assert numbers >= set(range(1, 15))
    last = shown.split("\r")[-1]
    epoch = r"14/14 .*step/s, epoch=2/2 \(\d\d:\d\d each\)"
    assert re.search(epoch + r", bound=-\d.*, kl=\d.*, beta=1, valid=none", last), last


def test_a_terminal_without_a_size_has_a_bar(monkeypatch):
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()  # its size is 0 x 0
    with open(theirs, "w", closefd=False) as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        with progress.Progress(None, epochs=1, steps=2, done=0) as bar:
            bar.bar.update()
    assert b"fit:" in os.read(ours, 10_000)
    os.close(ours)
    os.close(theirs)


def test_no_terminal_no_bar(monkeypatch):
    assert train(io.StringIO(), monkeypatch) == ""
    assert train(Terminal(), monkeypatch, progress=False) == ""
