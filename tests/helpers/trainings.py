"""Small trainings of every kind, to be run by one process or by several: ``python trainings.py
FOLDER NAME ...`` writes weights and history of each to a file of this process.
"""

import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pyrovae import estimators, likelihoods, nets, posteriors, priors, schedules
from pyrovae.data import resample
from pyrovae.models.vae import VAE
from pyrovae.training import fit

DATA, LATENT = 6, 2


def data(num=37):
    """Grey values in [0, 1]."""
    generator = torch.Generator().manual_seed(2)
    return torch.rand(num, DATA, generator=generator, dtype=torch.float64)


def black(num=37):
    """Zeros and ones."""
    return data(num).round()


def model(**parts):
    """A VAE in double precision, the same for every process."""
    torch.manual_seed(0)
    return VAE((DATA,), LATENT, encoder=nets.MLP(8), decoder=nets.MLP(8), **parts).double()


def layers(*middle):
    """Makes a network with further layers in the middle."""

    def make():
        parts = nn.Linear(DATA, 8), *(part() for part in middle), nn.Tanh()
        return nn.Sequential(*parts, nn.Linear(8, 2 * LATENT))

    return make


def plain(encoder, **options):
    """A VAE whose encoder is a module of torch's."""

    def make():
        torch.manual_seed(1)
        vae = VAE((DATA,), LATENT, encoder=encoder(), decoder=nets.MLP(8))
        return vae.double(), {"train": black(), **options}

    return make


def case(train=black, *, parts=None, **options):
    """A training of the usual VAE; data are made when it begins."""

    def make():
        return model(**(parts() if parts else {})), {"train": train(), **options}

    return make


class Gamma(nn.Module):
    """A guide whose draws take more random numbers for some values than for others."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(DATA, 2).double()

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(2.0, x.new_ones(())))
            pyro.sample("x", dist.Normal(z[:, None], 1.0).expand((len(x), DATA)).to_event(1), obs=x)

    def guide(self, x):
        shape, rate = self.net(x).exp().unbind(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Gamma(shape, rate))


class Scale(nn.Module):
    """A factor that differs between processes until they begin."""

    def __init__(self):
        super().__init__()
        value = 1.0 + int(os.environ.get("RANK", 0))
        self.register_buffer("value", torch.tensor(value, dtype=torch.float64))

    def forward(self, x):
        return x * self.value


class Hiding(nn.Module):
    """Programs with a module where no attribute shows it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(DATA, LATENT).double()
        self.parts = {"scale": Scale()}

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(LATENT), 1.0).to_event(1))
            mean = z.sum(-1, keepdim=True).expand(-1, DATA)
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.net(self.parts["scale"](x)), 1.0).to_event(1))


def loader():
    """A shuffled loader with a generator of its own, and labels that nobody takes."""
    generator = torch.Generator().manual_seed(5)
    items = TensorDataset(black(), torch.arange(37))
    return DataLoader(items, batch_size=10, shuffle=True, generator=generator)


def noisy(x):
    """A transform that no graph can hold: it draws from NumPy's generator."""
    return x + 0.1 * torch.as_tensor(np.random.rand(*x.shape))  # noqa: NPY002


def discrete(**more):
    return lambda: {
        "prior": priors.Categorical(num_categories=LATENT),
        "posterior": posteriors.Categorical(num_categories=LATENT),
        **more,
    }


def gaussian():
    return {"likelihood": likelihoods.Gaussian("learned")}


stops = (lambda row: row["epoch"] == 2) if os.environ.get("RANK", "0") == "0" else None
"""A callback that the first process alone is given, such as a tracker."""

CASES = {
    "elbo": case(valid=black(11), epochs=3, patience=2),
    "one datum in the last batch": case(lambda: black(31)),
    "captured": plain(
        layers(lambda: nn.Dropout(0.3)),
        estimator=estimators.IWAE(num_particles=3),
        capture=True,
        epochs=1,
    ),
    "stopped by the first": case(epochs=4, callback=stops),
    "IWAE": case(estimator=estimators.IWAE(num_particles=5)),
    "DReG": case(estimator=estimators.DReG(num_particles=5), clip_norm=0.5),
    "as many particles as rows": case(estimator=estimators.STL(num_particles=5)),
    "binarised anew": case(data, transform=resample, valid=data(11).round()),
    "a transform by NumPy": case(data, parts=gaussian, transform=noisy),
    "dropout": plain(layers(lambda: nn.Dropout(0.3))),
    "dropout under particles": plain(
        layers(lambda: nn.Dropout(0.3)), estimator=estimators.IWAE(num_particles=3)
    ),
    "GECO": case(parts=gaussian, beta=schedules.GECO(target=-3.0)),
    "warm-up": case(
        beta=schedules.Linear(0.0, 1.0, steps=6), lr=schedules.Linear(0.01, 0.001, steps=8)
    ),
    "Vamp": case(parts=lambda: {"prior": priors.Vamp(num_components=3)}),
    "a discrete code": case(parts=discrete(), estimator=estimators.ScoreELBO(num_particles=3)),
    "VIMCO": case(parts=discrete(), estimator=estimators.VIMCO(num_particles=4)),
    "RWS": case(estimator=estimators.RWS(num_particles=4)),
    "SGD": case(optimizer=lambda p: torch.optim.SGD(p, 0.05, momentum=0.9)),
    "Pyro's own ELBO": case(estimator=Trace_ELBO()),
    "Pyro's own ELBO under beta": case(
        estimator=Trace_ELBO(), beta=schedules.Linear(0.5, 1.0, steps=3)
    ),
    "a loader": case(loader),
    "batch normalisation": plain(layers(lambda: nn.BatchNorm1d(8)), valid=black(11)),
    "FreeBits": case(estimator=estimators.FreeBits(nats=0.2)),
    "gamma": lambda: (Gamma(), {"train": data()}),
    "a hidden module": lambda: (Hiding(), {"train": data()}),
}


def run(name, **more):
    """Weights, history and warnings of a case."""
    vae, options = CASES[name]()
    if isinstance(options["train"], DataLoader):
        more.pop("batch_size", None)
    settings = {"epochs": 2, "batch_size": 10, "lr": 0.01, "progress": False, **more, **options}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = fit(vae.model, vae.guide, **settings)
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in history.rows]
    state = {key: value.double() for key, value in vae.state_dict().items()}
    return {"state": state, "rows": rows, "warnings": [str(w.message) for w in caught]}


def main(folder, *words):
    """Options such as ``capture=False`` hold for all cases."""
    options = {k: eval(v) for k, _, v in (w.partition("=") for w in words if "=" in w)}
    for name in [word for word in words if "=" not in word] or CASES:
        torch.save(run(name, **options), Path(folder) / f"{name}-{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
