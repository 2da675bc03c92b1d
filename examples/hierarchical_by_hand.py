"""A hierarchical VAE written by hand in plain Pyro, beside one with a single layer.

``model`` and ``guide`` below are ordinary Pyro programs. The model draws z2, then z1 given z2, then
x given z1. The guide draws z1 given x, then z2 given z1. ``pv.fit`` trains them, and
``pv.log_marginal`` estimates log p(x), as for a ``pv.VAE``.

    python examples/hierarchical_by_hand.py
    python examples/hierarchical_by_hand.py --quick
"""

import argparse

import pyro
import pyro.distributions as dist
import torch
from torch import nn

import pyrovae as pv
from pyrovae import nets


def net(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 100), nn.ReLU(), nn.Linear(100, outputs))


def normal(outputs):
    loc, raw = outputs.chunk(2, dim=-1)
    return dist.Normal(loc, nn.functional.softplus(raw) + 1e-4).to_event(1)


class Hierarchy(nn.Module):
    def __init__(self):
        super().__init__()
        self.decode, self.encode = net(8, 64), net(64, 16)  # between z1 and x
        self.down, self.up = net(4, 16), net(8, 8)  # between z2 and z1

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(4), 1.0).to_event(1))
            z1 = pyro.sample("z1", normal(self.down(z2)))
            logits = self.decode(z1).unflatten(-1, (8, 8))
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(2), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z1 = pyro.sample("z1", normal(self.encode(x.flatten(1))))
            pyro.sample("z2", normal(self.up(z1)))


def main(quick):
    digits = pv.data.load("digits").binarize("threshold")
    torch.manual_seed(0)
    small = {"encoder": nets.MLP(100), "decoder": nets.MLP(100)}
    models = {"one layer": pv.VAE(digits.data_shape, 8, **small), "two layers": Hierarchy()}
    settings = {"epochs": 2 if quick else 200, "lr": 2e-3, "patience": 20}
    found = {}
    for name, made in models.items():
        programs = made.model, made.guide
        pv.fit(*programs, digits.train, valid=digits.valid, **settings)
        found[name] = pv.log_marginal(*programs, digits.test, num_particles=20 if quick else 1_000)
    print(found["two layers"])
    print(f"\n{pv.compare_models(found)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    main(parser.parse_args().quick)
