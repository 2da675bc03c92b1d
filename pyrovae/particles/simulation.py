"""Data that the model itself draws."""

from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyrovae.particles.matching import data_frame
from pyrovae.particles.running import given, run, sites_of
from pyrovae.particles.scoring import log_prob_of
from pyrovae.programs import Program


def simulate(
    model: Program, args: tuple, kwargs: dict[str, Any] | None = None
) -> tuple[tuple, dict[str, Tensor]]:
    """Draw a batch of data from the model, and the latent values, ``(B, *event)`` each, that they
    came from.

    Args:
        args: Arguments of the model. The observed ones only give shape, and come back replaced.

    Raises:
        ValueError: If an observed site's value is not one of the arguments.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian()  # its guide is the exact posterior
        >>> x = oracle.sample(4)
        >>> (fresh,), latents = simulate(oracle.model, (x,))
        >>> fresh.shape, latents["z"].shape, bool((fresh == x).any())
        (torch.Size([4, 5]), torch.Size([4, 2]), False)
    """
    fresh, sites = _uncondition(model, args, kwargs or {})
    latents = {name: site["value"] for name, site in sites.items() if not _was_observed(site)}
    return fresh, latents


def dream(
    model: Program, guide: Program, args: tuple = (), kwargs: dict[str, Any] | None = None
) -> Tensor:
    """``(B,)``: log q(z' | x') of a pair that the model itself draws, one for each datum of a
    batch.

    The guide sees x' in place of the positional arguments that the model observes.

    Raises:
        ValueError: If an observed site's value is not one of the arguments.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian()  # its guide is the exact posterior
        >>> x = oracle.sample(1000)
        >>> found = dream(oracle.model, oracle.guide, (x,))
        >>> entropy = oracle.posterior(x).entropy().mean()
        >>> bool((found.mean() + entropy).abs() < 0.2)  # the error of a mean of 1,000 is 0.03
        True
    """
    kwargs = kwargs or {}
    fresh, sites = _uncondition(model, args, kwargs)
    dreamt = given({name: site["value"] for name, site in sites.items()})
    replayed = poutine.trace(poutine.replay(guide, trace=dreamt)).get_trace(*fresh, **kwargs)
    log_q: Any = 0.0
    for site in sites_of(replayed, observed=False).values():
        size = data_frame(site).size
        log_prob = log_prob_of(site)
        log_q = log_q + log_prob.expand(*log_prob.shape[:-1], size).reshape(-1, size).sum(0)
    return log_q


def _uncondition(
    model: Program, args: tuple, kwargs: dict[str, Any]
) -> tuple[tuple, dict[str, Any]]:
    """The arguments with what the model drew in place of what it observes, and all of its sample
    sites.
    """
    with torch.no_grad():
        trace = poutine.trace(poutine.uncondition(model)).get_trace(*args, **kwargs)
    sites = sites_of(trace, observed=False)
    fresh = list(args)
    for name, site in sites.items():
        if not _was_observed(site):
            continue
        places = [i for i, arg in enumerate(args) if arg is site["infer"]["obs"]]
        if not places:
            raise ValueError(
                f"Site '{name}' observes none of the programs' positional arguments as given, so "
                "no simulated data can take its place. Let the model observe the argument itself, "
                "or do without simulation."
            )
        fresh[places[0]] = site["value"]
    return tuple(fresh), sites


def _was_observed(site: Any) -> bool:
    return bool(site["infer"].get("was_observed"))


def predict(
    model: Program,
    values: dict[str, Tensor],
    args: tuple = (),
    kwargs: dict[str, Any] | None = None,
    *,
    max_plate_nesting: int = 1,
) -> dict[str, Tensor]:
    """Draw every observed site anew, ``(K, B, *event)``, given latent values of K particles.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian()  # its guide is the exact posterior
        >>> x = oracle.sample(4)
        >>> z = torch.zeros(500, 4, 2, dtype=x.dtype)
        >>> found = predict(oracle.model, {"z": z}, (x,))["x"]  # from N(b, sigma^2 I)
        >>> found.shape, bool((found.mean((0, 1)) - oracle.bias).abs().max() < 0.1)
        (torch.Size([500, 4, 5]), True)
    """
    with torch.no_grad():
        trace = run(
            poutine.uncondition(model),
            len(next(iter(values.values()))),
            args,
            kwargs or {},
            max_plate_nesting=max_plate_nesting,
            trace=given(values),
            role="model",
        )
    return {
        name: site["value"]
        for name, site in sites_of(trace, observed=False).items()
        if _was_observed(site)
    }
