"""Variational autoencoders as Pyro programs: swap parts, compare ELBO estimators, estimate the
marginal likelihood.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pyrovae import (
        compare,
        data,
        estimators,
        evidence,
        handlers,
        likelihoods,
        models,
        nets,
        plots,
        posteriors,
        priors,
        runs,
        schedules,
        testing,
        weights,
    )
    from pyrovae.compare import compare_estimators, compare_models
    from pyrovae.evidence import (
        AIS,
        Evidence,
        ImportanceSampling,
        Sandwich,
        bdmc,
        impute,
        log_marginal,
        observe_part,
        where_the_nats_go,
    )
    from pyrovae.models import (
        VAE,
        ClusteringVAE,
        ConditionalVAE,
        HierarchicalVAE,
        VariationalDequantization,
        load,
    )
    from pyrovae.runs import Config, load_run, sweep, train
    from pyrovae.svi import SVI
    from pyrovae.training import History, NonFiniteLoss, fit

_NAMES = {
    "AIS": "evidence",
    "ClusteringVAE": "models",
    "ConditionalVAE": "models",
    "Config": "runs",
    "Evidence": "evidence",
    "HierarchicalVAE": "models",
    "History": "training",
    "ImportanceSampling": "evidence",
    "NonFiniteLoss": "training",
    "SVI": "svi",
    "Sandwich": "evidence",
    "VAE": "models",
    "VariationalDequantization": "models",
    "bdmc": "evidence",
    "compare_estimators": "compare",
    "compare_models": "compare",
    "fit": "training",
    "load_run": "runs",
    "impute": "evidence",
    "load": "models",
    "log_marginal": "evidence",
    "observe_part": "evidence",
    "sweep": "runs",
    "train": "runs",
    "where_the_nats_go": "evidence",
}

__all__ = [
    "AIS",
    "ClusteringVAE",
    "ConditionalVAE",
    "Config",
    "Evidence",
    "HierarchicalVAE",
    "History",
    "ImportanceSampling",
    "NonFiniteLoss",
    "SVI",
    "Sandwich",
    "VAE",
    "VariationalDequantization",
    "bdmc",
    "compare",
    "compare_estimators",
    "compare_models",
    "data",
    "estimators",
    "evidence",
    "fit",
    "handlers",
    "impute",
    "likelihoods",
    "load",
    "load_run",
    "log_marginal",
    "nets",
    "observe_part",
    "plots",
    "posteriors",
    "priors",
    "runs",
    "schedules",
    "models",
    "sweep",
    "testing",
    "train",
    "weights",
    "where_the_nats_go",
]


# Loaded on first use, so that `import pyrovae` and `pyrovae --help` do not wait for torch.
def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(f"pyrovae.{_NAMES[name]}"), name)
    elif name in __all__:
        value = importlib.import_module(f"pyrovae.{name}")
    else:
        raise AttributeError(f"module 'pyrovae' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
