"""A training step beside the recorded ratios: `pytest -m bench` prints, and asserts nothing."""

import json
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent / "benchmarks"
RECORDED = json.loads((HERE / "recorded.json").read_text())
NOISE = 0.1  # of a ratio, between runs on one machine


@pytest.mark.bench
@pytest.mark.parametrize("name", RECORDED)
def test_a_step_against_hand_written_torch(name, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(HERE))
    from cases import CASES, build, hand_written
    from timing import alternate, machine, ratios
    from training_step import ours, stepped

    case = CASES[name]
    torch.manual_seed(0)
    data = (torch.rand(60 * case.batch, *case.shape) < 0.3).float()

    def orders() -> torch.Tensor:
        return torch.randint(len(data), (case.batch,))

    common = data, orders
    contenders = {
        "torch": hand_written(case, build(case), *common, fused=False, compiled=False),
        "torch, fused Adam": hand_written(case, build(case), *common, fused=True, compiled=False),
        "pyrovae, captured": stepped(ours(case, build(case), *common, compile=False), orders),
        "pyrovae, compiled": stepped(ours(case, build(case), *common, compile=True), orders),
    }
    found = ratios(alternate(contenders), "torch")
    with capsys.disabled():
        print(f"\n{machine()}\n{name}, ratio to torch: now, recorded")
        for contender, before in RECORDED[name].items():
            now = found[contender]
            change = (now - before) / before
            word = "as recorded" if abs(change) <= NOISE else "better" if change < 0 else "worse"
            print(f"  {contender}: {now:.2f}, {before:.2f}: {word}")
