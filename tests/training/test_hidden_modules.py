"""Modules that programs hold in dictionaries or lists of plain objects are trained, kept, restored
and resumed as any other.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyrovae import fit
from pyrovae.programs import meet


class Holder:
    """Its networks, with batch normalisation, stand where no attribute shows them."""

    def __init__(self):
        torch.manual_seed(0)
        self.nets = {
            "encoder": nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 4)),
            "decoder": [nn.Linear(2, 3)],
        }

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.nets["decoder"][0](z), 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            loc, raw = self.nets["encoder"](x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, nn.functional.softplus(raw)).to_event(1))

    @property
    def norm(self):
        return self.nets["encoder"][1]

    def state(self):
        modules = [self.nets["encoder"], *self.nets["decoder"]]
        return [v.clone() for module in modules for v in module.state_dict().values()]


@pytest.fixture
def x():
    return 5 + torch.randn(24, 3, generator=torch.Generator().manual_seed(1))


def test_all_modules_are_met_and_none_within_another(x):
    holder = Holder()
    found = meet(holder.model, holder.guide, x)
    assert found.modules == [holder.nets["encoder"], *holder.nets["decoder"]]
    assert len(found.parameters) == 8


def test_the_best_epoch_brings_its_running_statistics_back(x):
    holder, seen = Holder(), []

    def look(row):
        seen.append(holder.state())
        if len(seen) == 2:  # from now on epochs are worse
            with torch.no_grad():
                holder.nets["decoder"][0].bias.add_(100.0)

    history = fit(holder.model, holder.guide, x, valid=x, epochs=4, batch_size=8, callback=look)
    assert history.best_epoch == 2
    assert not torch.equal(seen[1][3], seen[3][3])  # the running mean
    for found, expected in zip(holder.state(), seen[1], strict=True):
        assert torch.equal(found, expected)


def test_a_resumed_run_equals_an_uninterrupted_one(x, tmp_path):
    common = {"batch_size": 8, "valid": x}
    whole, cut, rest = Holder(), Holder(), Holder()
    full = fit(whole.model, whole.guide, x, epochs=4, **common)
    saved = {"checkpoint": tmp_path / "state.pt"}
    fit(cut.model, cut.guide, x, epochs=2, **common, **saved)
    found = fit(rest.model, rest.guide, x, epochs=4, **common, **saved, resume=True)
    assert found["valid_bound"].tolist() == full["valid_bound"].tolist()
    for a, b in zip(rest.state(), whole.state(), strict=True):
        assert torch.equal(a, b)


def test_modules_are_in_training_mode_while_training(x):
    holder = Holder()
    holder.norm.eval()
    before = holder.norm.running_mean.clone()
    fit(holder.model, holder.guide, x, epochs=1)
    assert not torch.equal(holder.norm.running_mean, before)


def test_a_skipped_step_leaves_running_statistics_alone(x):
    """Of three steps the second one sees an infinite datum."""
    holder = Holder()

    def spoiled(batch):
        return batch.where(batch != x[8], torch.inf)

    history = fit(holder.model, holder.guide, x, transform=spoiled, nonfinite="skip", epochs=1,
                  batch_size=8, shuffle=False, capture=False)  # fmt: skip
    assert history.rows[0]["skipped"] == 1
    assert holder.norm.running_mean.isfinite().all()
    assert holder.norm.num_batches_tracked == 2
