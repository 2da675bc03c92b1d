"""Why a step was not finite: the site and the data at fault, and what fits the likelihood."""

from collections.abc import Sequence
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyrovae.programs import Program, evaluation_mode

__all__ = ["advice", "fault"]

_LARGE = 1_000.0  # counts from here on overflow an encoder that sees them as they are


def fault(programs: Sequence[Program], batch: tuple[Tensor, ...]) -> str:
    """What one run of the programs on a batch tells, at their present weights, as a sentence with a
    space after it; empty where every density is finite, or where the programs do not run.
    """
    try:
        sites = [site for trace in _traces(programs, batch) for site in trace.nodes.values()]
        # What is observed first: a datum out of bounds spoils the latent sites as well.
        for site in sorted(sites, key=lambda site: not site.get("is_observed")):
            if site["type"] != "sample" or "log_prob" not in site:
                continue
            bad = ~torch.isfinite(site["log_prob"])
            if bad.any():
                rows = bad.reshape(-1, bad.shape[-1]).any(0) if bad.dim() else bad
                found = rows.reshape(-1).nonzero().flatten().tolist()
                where = f" for the data {_some(found)} of the batch" if bad.dim() else ""
                return f"There, log p of site '{site['name']}' is not finite{where}. "
    except Exception:  # the programs were never meant to run on this alone
        return ""
    return ""


def advice(programs: Sequence[Program], batch: tuple[Tensor, ...]) -> str:
    """What to change, for the likelihood at hand."""
    common = "Lower lr, or clip gradients (clip_norm=...)"
    try:
        observed = [
            site
            for trace in _traces(programs, batch)
            for name, site in trace.nodes.items()
            if site["type"] == "sample" and site["is_observed"] and name != "_INPUT"
        ]
    except Exception:  # as above
        return f"{common}."
    seen = [torch.as_tensor(site["value"]) for site in observed]
    discrete = [site for site in observed if getattr(site["fn"].support, "is_discrete", False)]
    largest = max((float(x.max()) for x in seen if x.numel()), default=0.0)
    if discrete and largest > _LARGE:
        return (
            f"{common}. The data are counts up to {largest:,.0f}: let the encoder see "
            "log(1 + x), by encoder=nets.Log1p(...)."
        )
    scaled = any(hasattr(_inner(site["fn"]), "scale") for site in observed)
    if scaled and not discrete:
        return f"{common[:-1]}), or give the likelihood a larger minimum scale."
    return f"{common}."


def _traces(programs: Sequence[Program], batch: tuple[Tensor, ...]) -> list[Any]:
    model, guide = programs
    devices = [batch[0].device] if batch[0].is_cuda else []
    with (
        torch.no_grad(),
        torch.random.fork_rng(devices=devices),
        evaluation_mode(model, guide),
        pyro.validation_enabled(False),
    ):
        drawn = poutine.trace(guide).get_trace(*batch)
        seen = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(*batch)
        for trace in (drawn, seen):
            trace.compute_log_prob()
    return [seen, drawn]


def _inner(distribution: Any) -> Any:
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return distribution


def _some(rows: list[int]) -> str:
    shown = ", ".join(map(str, rows[:5]))
    return shown if len(rows) <= 5 else f"{shown} and {len(rows) - 5} more"
