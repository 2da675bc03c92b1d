"""The columns of an :class:`~pyrovae.Evidence`: what each means, and its units."""

import json
from typing import TYPE_CHECKING, Any

import numpy as np

import pyrovae

if TYPE_CHECKING:
    import xarray

MEANING = {
    "log_marginal": ("log p(x), estimated", "nats"),
    "standard_error": ("Monte Carlo standard error of log_marginal", "nats"),
    "ess": ("effective sample size of the weights", "particles"),
    "pareto_k": (
        "Pareto shape of the largest weights; above 0.7 the estimate is not to be trusted",
        "1",
    ),
    "num_particles": ("weights that the estimate averages", "particles"),
    "debiased": ("log_marginal by the jackknife of order 1", "nats"),
    "debiased_twice": ("log_marginal by the jackknife of order 2", "nats"),
    "acceptance": ("share of proposals that HMC accepted", "1"),
    "log_weight_variance": ("variance of the log weights", "nats squared"),
    "refinement_gain": ("rise of the ELBO by a guide fitted to the datum", "nats"),
    "unseen": ("what the tail of the weights may hide, with k two standard errors higher", "nats"),
    "degrees_of_freedom": ("of the standard error", "1"),
    "batch_log_mean": ("log mean of every eighth weight", "nats"),
    "resolution": ("rounding of the densities", "nats"),
    "rounding_error": ("what bfloat16 in the networks added, on a datum's first particles", "nats"),
}

KNOWN = {
    "bound": "lower",
    "seed": -1,
    "num_dims": 0,
    "data_scale": 1.0,
    "data": "",
    "method": "",
    "measure": "",
}
"""Attributes that every evidence has, where nothing else is said."""


class WithDataset:
    """A result whose variables, in an :class:`xarray.Dataset`, are attributes, too."""

    def __init__(self, dataset: "xarray.Dataset"):
        self.dataset = dataset

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "dataset":
            raise AttributeError(name)
        if name in self.dataset:
            return self.dataset[name]
        raise AttributeError(f"There is no '{name}' here; there are {list(self.dataset)}.")


def dataset_of(columns: dict[str, Any], attributes: dict[str, Any]) -> "xarray.Dataset":
    """``(B,)`` and ``(B, 8)`` columns, and attributes of which dictionaries become JSON."""
    import xarray

    variables = {}
    for name, column in columns.items():
        meaning, units = MEANING.get(name, (name.replace("_", " "), ""))
        dims = ("datum", "batch")[: np.ndim(column)]
        variables[name] = (dims, np.asarray(column), {"long_name": meaning, "units": units})
    attributes = {**KNOWN, "version": pyrovae.__version__, **attributes}
    return xarray.Dataset(
        variables,
        coords={"datum": np.arange(len(columns["log_marginal"]))},
        attrs={k: json.dumps(v) if isinstance(v, dict) else v for k, v in attributes.items()},
    )
