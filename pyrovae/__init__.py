"""Variational autoencoders as Pyro programs: swap parts, compare ELBO estimators, estimate the marginal likelihood."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pyrovae import (
        data,
        estimators,
        evidence,
        handlers,
        likelihoods,
        nets,
        posteriors,
        priors,
        schedules,
        testing,
        weights,
    )
    from pyrovae.evidence import Evidence, ImportanceSampling, log_marginal
    from pyrovae.training import History, fit
    from pyrovae.vae import VAE

# Loaded on first use, so that `import pyrovae` and `pyrovae --help` do not wait for torch.
_MODULES = (
    "data",
    "estimators",
    "evidence",
    "handlers",
    "likelihoods",
    "nets",
    "posteriors",
    "priors",
    "schedules",
    "testing",
    "weights",
)
_NAMES = {
    "Evidence": "evidence",
    "History": "training",
    "ImportanceSampling": "evidence",
    "VAE": "vae",
    "fit": "training",
    "log_marginal": "evidence",
}

__all__ = [
    "Evidence",
    "History",
    "ImportanceSampling",
    "VAE",
    "data",
    "estimators",
    "evidence",
    "fit",
    "handlers",
    "likelihoods",
    "log_marginal",
    "nets",
    "posteriors",
    "priors",
    "schedules",
    "testing",
    "weights",
]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(f"pyrovae.{_NAMES[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"pyrovae.{name}")
    else:
        raise AttributeError(f"module 'pyrovae' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
