"""What an :class:`~pyrovae.Evidence` prints."""

import math
from typing import Any

import numpy as np

from pyrovae.evidence.intervals import LEAST_WEIGHTS
from pyrovae.evidence.numbers import Numbers
from pyrovae.weights import BAD_K

__all__ = ["advice", "better_method", "ends", "summarize", "tail"]

_MUCH = 3.0  # variance of annealed log weights beyond which few chains show little


def summarize(evidence: Numbers) -> str:
    """Estimate, errors, interval, and what to think of them, a line each."""
    unit = "datum" if len(evidence) == 1 else "data"
    settings = ", ".join(f"{name}={value!r}" for name, value in evidence.settings.items())
    lines = [f"Evidence of {len(evidence)} {unit} by {evidence.method}({settings})"]
    lines += _estimate(evidence)
    infinite = int(np.isinf(evidence.log_marginal.values).sum())
    if infinite:
        lines.append(
            f"infinite   for {infinite} of {len(evidence)}: no particle has any weight there"
        )
    notes = evidence.notes
    lines += [
        f"summed     {name} over its {n} values" for name, n in notes.get("summed", {}).items()
    ]
    lines += [f"drawn      {name}: {why}" for name, why in notes.get("drawn", {}).items()]
    if not notes.get("exact"):
        lines += _diagnosis(evidence)
    if "target_standard_error" in evidence.settings:
        missed = len(evidence.missed_target())
        lines.append(
            f"target     {missed} of {len(evidence)} {unit} above it"
            if missed
            else "target     met"
        )
    return "\n  ".join(lines)


def _estimate(evidence: Numbers) -> list[str]:
    exact = bool(evidence.notes.get("exact"))
    what = "log p(x|y)" if evidence.dataset.attrs.get("given") else "log p(x)"
    chance = "" if exact else f" ± {evidence.monte_carlo_error():.2g} (Monte Carlo)"
    test = "" if len(evidence) == 1 else f" ± {evidence.test_set_error():.2g} (test set)"
    side = {"lower": "below", "upper": "above"}[evidence.bound]
    lines = [
        f"{what:<10} {evidence.mean():.6g}{chance}{test} nats per datum",
        "           exact, but for rounding"
        if exact
        else f"           on average {side} the truth",
    ]
    if int(evidence.dataset.attrs["num_dims"]):
        lines.append(f"           {evidence.bits_per_dim:.4g} bits per dimension")
    if not exact and math.isfinite(evidence.mean()):
        low, high = evidence.interval()
        lines.append(f"interval   {ends(low, high)} for these data, 95 %, Monte Carlo error alone")
        if evidence.unknown:
            lines.append(f"           the other end is unknown: {evidence.unknown}")
    return lines


def ends(low: float, high: float, form: str = ".6g") -> str:
    """An interval in words, of which an end may be unknown."""
    if math.isinf(high):
        return f"above {low:{form}}" if math.isfinite(low) else "unknown"
    return f"below {high:{form}}" if math.isinf(low) else f"{low:{form}} to {high:{form}}"


def _diagnosis(evidence: Numbers) -> list[str]:
    lines = []
    if "ess" in evidence.dataset:
        ess = evidence.ess.values
        lines.append(f"ESS        smallest {ess.min():.3g}, median {np.median(ess):.4g}")
    if "pareto_k" in evidence.dataset:
        lines += [f"Pareto k   {tail(evidence)}"]
        if text := advice(evidence):
            lines.append(f"           {text}")
    if "acceptance" in evidence.dataset:
        lines.append(f"chains     {_chains(evidence)}")
    if "rounding_error" in evidence.dataset:
        error = evidence.rounding_error.values
        lines.append(
            f"bfloat16   adds {error.mean():+.2g} nats on average, at most "
            f"{np.abs(error).max():.2g} either way"
        )
    return lines


def tail(evidence: Numbers) -> str:
    """What Pareto k says of the data."""
    if "num_particles" in evidence.dataset and (evidence.num_particles < LEAST_WEIGHTS).all():
        return f"no diagnosis: it takes {LEAST_WEIGHTS} particles or more"
    share = evidence.share_flagged
    if share == 0:
        return f"all below {BAD_K}"
    consequence = "there log p(x) may be underestimated by more than the error says"
    return f"{share:.1%} above {BAD_K}: {consequence}"


def advice(evidence: Numbers) -> str:
    """What to do about a bad k, in words."""
    found = better_method(evidence)
    if found is None:
        return ""
    name, settings = found
    if evidence.method == "AIS":
        arguments = f"num_temperatures={settings['num_temperatures']}"
        return f"try more temperatures, AIS({arguments}), or more chains"
    if name == "AIS":
        return 'try method=pv.AIS(num_temperatures=100, num_chains=32, start="guide")'
    return "more particles seldom help; try method=pv.ImportanceSampling(1_000, refine_steps=100)"


def better_method(evidence: Numbers) -> tuple[str, dict[str, Any]] | None:
    """A method that helped where it was measured (docs/what_the_errors_mean.md), as its name and
    settings; more particles did not. None where nothing needs help, or none is known.
    """
    weights = float(evidence.num_particles.max()) if "num_particles" in evidence.dataset else 0
    if evidence.share_flagged == 0 or weights < LEAST_WEIGHTS:
        return None
    if evidence.method == "AIS":
        return "AIS", {"num_temperatures": 2 * evidence.settings["num_temperatures"]}
    if evidence.method != "ImportanceSampling":
        return None
    if evidence.settings.get("refine_steps"):
        return "AIS", {"num_temperatures": 100, "num_chains": 32, "start": "guide"}
    return "ImportanceSampling", {"num_particles": 1000, "refine_steps": 100}


def _chains(evidence: Numbers) -> str:
    variance = float(evidence.log_weight_variance.median())
    share = float(evidence.acceptance.mean())
    text = "made no transition" if math.isnan(share) else f"accepted {share:.0%}"
    if math.isnan(variance):
        return f"{text}; a single chain shows no variance"
    text += f"; log weights vary by {variance:.2g} nats squared (median)"
    if variance <= _MUCH:
        return text
    return f"{text}, which is much: take more temperatures, or start from a better place"
