"""Training by several processes: the result is that of one, up to rounding."""

import warnings

import pytest
import torch
from helpers import trainings
from helpers.together import ROOT, together

from pyrovae import estimators, nets
from pyrovae.models.vae import VAE
from pyrovae.nets.precision import Bfloat16Networks
from pyrovae.objective import objective
from pyrovae.training.draws import Place, SharedDraws, draw_layouts
from pyrovae.training.shares import Share

SCRIPT = ROOT / "tests" / "helpers" / "trainings.py"
UNEQUAL = {"batch normalisation", "gamma"}
"""What one process and two do not agree on, and are warned of."""
WARNED = {*UNEQUAL, "FreeBits"}


def compare(name, folder, options):
    one = trainings.run(name, **options)
    two = [torch.load(folder / f"{name}-{rank}.pt", weights_only=True) for rank in range(2)]
    for key, value in two[0]["state"].items():
        assert torch.equal(value, two[1]["state"][key]), f"{key} differs between the processes"
    for mine, other in zip(two[0]["rows"], two[1]["rows"], strict=True):
        assert str(mine) == str(other)  # NaN without validation data
    told = [text for text in two[0]["warnings"] if "depends on how many processes" in text]
    assert bool(told) == (name in WARNED)
    if name in UNEQUAL:
        return
    # In double precision the order of sums moves the last digits alone.
    for key, value in one["state"].items():
        torch.testing.assert_close(two[0]["state"][key], value, rtol=1e-10, atol=1e-12)
    for mine, other in zip(one["rows"], two[0]["rows"], strict=True):
        for column, value in mine.items():
            assert other[column] == pytest.approx(value, rel=1e-10, abs=1e-12, nan_ok=True), column


QUICK = [
    "elbo",
    "one datum in the last batch",
    "stopped by the first",
    "captured",
    "binarised anew",
    "dropout under particles",
    "GECO",
    "Pyro's own ELBO under beta",
    "a loader",
    "batch normalisation",
    "gamma",
    "a hidden module",
]
SLOW = [name for name in trainings.CASES if name not in QUICK]


@pytest.mark.parametrize("names", [QUICK, pytest.param(SLOW, marks=pytest.mark.slow)])
def test_two_processes_give_the_result_of_one(tmp_path, names):
    together([SCRIPT, tmp_path, "capture=False", *names])
    for name in names:
        compare(name, tmp_path, {"capture": False})


@pytest.mark.slow
@pytest.mark.parametrize("options", ["capture=True", "compile=True"])
def test_two_processes_give_the_result_of_one_by_graphs(tmp_path, options):
    names = ["elbo", "IWAE", "dropout"] if "compile" in options else trainings.CASES
    together([SCRIPT, tmp_path, options, *names])
    for name in names:
        compare(name, tmp_path, {options.split("=")[0]: True})


@pytest.mark.slow
def test_five_processes_share_unequal_batches(tmp_path):
    together([SCRIPT, tmp_path, "capture=False", "elbo"], 5)
    compare("elbo", tmp_path, {"capture": False})


def test_two_processes_go_on_within_an_epoch(tmp_path):
    """Bit for bit, with the graph of a whole batch captured first, and with the same warnings."""
    names = "captured", "FreeBits"
    together([ROOT / "tests" / "helpers" / "resumed.py", tmp_path, *names])
    for name in names:
        every = [torch.load(tmp_path / f"{name}-{r}.pt", weights_only=True) for r in range(2)]
        for found in every:
            whole, resumed = found["whole"], found["resumed"]
            assert resumed["taken"] == whole["taken"] - 2
            assert resumed["graphs"] == (name == "captured")
            assert str(resumed["rows"]) == str(whole["rows"])
            assert resumed["warnings"] == whole["warnings"]
            for key, value in whole["state"].items():
                assert torch.equal(resumed["state"][key], value), key
        assert every[0]["whole"]["looks"] == every[1]["whole"]["looks"]


def test_rounded_networks_are_not_taken_for_data_that_depend_on_each_other():
    """The product of a batch and those of its halves are rounded apart."""
    torch.manual_seed(0)
    vae = VAE((64,), 8, encoder=nets.MLP(128), decoder=nets.MLP(128))
    x = torch.rand(128, 64).round()
    of = objective(vae.model, vae.guide, estimators.ELBO(), list(vae.parameters()))
    share = Share(of, around=Bfloat16Networks)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        share.prepare(None, [x])
        share.compare(None, [x])


@pytest.mark.parametrize(
    "draw",
    [
        lambda x: torch.randn(3, len(x), 2),
        lambda x: torch.empty(len(x), 5).uniform_(),
        lambda x: torch.empty(2, len(x), 4).transpose(0, 2).normal_(),
        lambda x: torch.empty(len(x)).exponential_(2.0),
        lambda x: torch.rand_like(x),
        lambda x: torch.randint(0, 9, (len(x), 4)),
        lambda x: torch.randint(2, 9, (3, len(x)), generator=torch.default_generator),
        lambda x: torch.randint_like(x, 9),
        lambda x: torch.randint_like(x, 2, 9),
        lambda x: torch.empty(len(x), 2).random_(),
        lambda x: torch.empty(len(x), 2).random_(2, 9),
        lambda x: torch.normal(1.0, 2.0, (len(x), 2)),
        lambda x: torch.bernoulli(x, 0.3),
        lambda x: torch.bernoulli(x.expand(3, -1)),
        lambda x: torch.normal(x, torch.ones(len(x))),
        lambda x: torch.multinomial(torch.stack([x, 1 - x], 1) + 0.1, 1)[:, 0],
        lambda x: torch.multinomial(
            torch.stack([x, 1 - x], 1).repeat(3, 1) + 0.1, 1
        ).reshape(3, -1),
        lambda x: torch.nn.functional.dropout(x.expand(3, -1), 0.4),
        lambda x: torch.randn(4),  # not over the data: the same for all
    ],
)  # fmt: skip
def test_rows_of_a_share_are_those_of_the_whole(draw):
    """Of every kind of random tensor, and the generator ends where one process would leave it."""
    x = torch.linspace(0, 1, 28)
    torch.manual_seed(1)
    whole, after = draw(x), torch.rand(())
    layouts = draw_layouts(lambda num: draw(x[:num]), 3)
    for first, num in ((0, 11), (11, 16), (27, 1)):
        torch.manual_seed(1)
        with SharedDraws(layouts, Place(0, first, num, 28)):
            found = draw(x[first : first + num])
        axis = next((i for i, size in enumerate(whole.shape) if size == 28), None)
        expected = whole if axis is None else whole.narrow(axis, first, num)
        assert torch.equal(found, expected)
        assert torch.rand(()) == after


def test_draws_that_cannot_be_shared_are_refused():
    with pytest.raises(ValueError, match="1 random tensors for two data and 2 for three"):
        draw_layouts(lambda num: [torch.rand(4) for _ in range(num - 1)], 1)
    with pytest.raises(ValueError, match=r"shape \(2, 2\) for two data"):
        draw_layouts(lambda num: torch.rand(num, num), 1)
    layouts = draw_layouts(torch.randperm, 1)
    with SharedDraws(layouts, Place(0, 0, 2, 4)), pytest.raises(ValueError, match="randperm"):
        torch.randperm(2)
    with (
        pytest.raises(ValueError, match="do not draw the same"),
        SharedDraws([None], Place(0, 0, 2, 4)),
    ):
        pass
