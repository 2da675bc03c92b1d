"""The page on models runs as typed."""

import re
from pathlib import Path

import pyro
import torch

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"


def test_every_example_runs_and_gives_what_it_says():
    torch.manual_seed(0)
    pyro.clear_param_store()
    names = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        exec(block, names)
    pyro.clear_param_store()
    assert names["codes"].shape == (64, 2)
    assert names["again"].shape == (64, 6)
    assert names["path"].shape == (5, 1, 6)
    assert names["z2"].batch_shape == (64,)
    assert len(names["deep"]) == len(names["given"]) == 64
    assert names["drawn"].shape == (3, 6)
    assert torch.allclose(names["shares"].sum(-1), torch.ones(64))
