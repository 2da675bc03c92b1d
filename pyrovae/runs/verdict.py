"""What the number of a run means, in words: whether it is good, whether to trust it, what next."""

import math
from typing import Any

import numpy as np

from pyrovae.declare import number, with_minus
from pyrovae.evidence import Evidence
from pyrovae.evidence.summary import better_method, ends, tail
from pyrovae.weights import BAD_K

__all__ = ["diagnosis", "result"]


def result(evidence: Evidence, name: str, baseline: np.ndarray | str) -> dict[str, Any]:
    """The number, its verdict, what it means, and the facts beside it.

    Args:
        evidence: Of the test data.
        name: What to call these.
        baseline: log p(x) of the same data without latent variables, or why it is not known.
    """
    given = evidence.dataset.attrs.get("given")
    facts = []
    if not _exact(evidence):
        facts.append(("Monte Carlo error", f"± {_short(evidence.monte_carlo_error())}"))
    facts.append(("Test-set error", f"± {_short(evidence.test_set_error())}"))
    if not _exact(evidence) and math.isfinite(evidence.mean()):
        facts.append(("95 % Monte Carlo interval", with_minus(ends(*evidence.interval()))))
    if not isinstance(baseline, str):
        facts.append(("Without latent variables", number(float(baseline.mean()))))
    if int(evidence.dataset.attrs["num_dims"]):
        facts.append(("Bits per dimension (lower is better)", f"{evidence.bits_per_dim:.4f}"))
    if "pareto_k" in evidence.dataset and not _exact(evidence):
        facts.append((f"Data with Pareto k above {BAD_K}", f"{evidence.share_flagged:.1%}"))
    return {
        "number": number(evidence.mean()),
        "symbol": "log p(x | y)" if given else "log p(x)",
        "verdict": [text for text in (_goodness(evidence, baseline), _trust(evidence)) if text],
        "meaning": f"The number is the average log-likelihood of {len(evidence):,} test data of "
        f"{name}{' given their labels' * bool(given)}, on which the model was not trained. Higher "
        "is better. A nat is a unit of information, 1.44 bits: with one nat more per datum, a "
        "datum is 2.7 times as probable to the model, on (geometric) average.",
        "facts": facts,
    }


def diagnosis(evidence: Evidence, path: str, trust: str) -> dict[str, Any]:
    """Whether the estimate can be trusted, and what to do next, with a command.

    Args:
        evidence: Of the test data.
        path: The run's folder.
        trust: The option that the run's commands need, or nothing.
    """
    if _exact(evidence):
        return {"text": ["log p(x) is exact here, up to rounding: no draws were needed."]}
    text = []
    if "pareto_k" in evidence.dataset:
        text.append(f"Pareto k, the shape of the largest weights: {tail(evidence)}.")
        if evidence.share_flagged == 0 and "no diagnosis" not in text[0]:
            text.append("There is nothing to be done about the estimate.")
    if evidence.unknown:
        text.append(f"The other end of the interval is unknown: {evidence.unknown}.")
    found = better_method(evidence)
    if found is None:
        return {"text": text}
    name, settings = found
    options = " ".join(f"--method.{key} {value}" for key, value in settings.items())
    more = "" if name == "AIS" else " More particles alone seldom help."
    text.append(f"What to do next: estimate again by a method that follows the posterior.{more}")
    return {"text": text, "command": f"pyrovae evaluate {path}{trust} --method {name} {options}"}


def _goodness(evidence: Evidence, baseline: np.ndarray | str) -> str:
    """How much better the model is than one without latent variables."""
    if isinstance(baseline, str):
        return f"How the same likelihood does without latent variables is not known: {baseline}."
    if not math.isfinite(evidence.mean()):
        return ""
    gain = evidence.log_marginal.values - baseline
    mean, error = float(gain.mean()), math.inf
    if len(gain) > 1:
        error = 2 * float(gain.std(ddof=1)) / math.sqrt(len(gain))
    other = "the same likelihood without latent variables"
    if evidence.dataset.attrs.get("given"):
        other += " that knows nothing of y"
    spread = f"(± {error:.2f}, two standard errors)"
    # A poor estimate lies below log p(x), so that it can hide a good model, but not a bad one.
    unsure = "pareto_k" in evidence.dataset and evidence.share_flagged > 0
    perhaps = " The estimate may also be too low: read on below." * bool(unsure)
    if mean > error:
        return (
            f"Better than {other}, by {mean:.2f} nats per datum {spread}: the latent variables "
            "have learned something of the data."
        )
    if mean < -error:
        return (
            f"Worse than {other}, by {-mean:.2f} nats per datum {spread}: train for longer, bring "
            f"the columns of a table to one scale, or take a smaller network.{perhaps}"
        )
    return (
        f"No better than {other}: the difference is {number(mean, 2)} nats per datum "
        f"{spread}. Train for longer, or warm beta up.{perhaps}"
    )


def _trust(evidence: Evidence) -> str:
    """Whether the number itself can be trusted."""
    if _exact(evidence):
        return "The number is exact, up to rounding."
    infinite = int(np.isinf(evidence.log_marginal.values).sum())
    if infinite:
        return f"For {infinite} of the data no particle has any weight: the number is no estimate."
    side = {"lower": "lies below", "upper": "lies above"}[evidence.bound]
    text = f"It is an estimate by {evidence.method} that on average {side} the true value."
    if "pareto_k" not in evidence.dataset:
        return text
    if evidence.share_flagged > 0:
        return (
            f"{text} For {evidence.share_flagged:.1%} of the data (Pareto k above {BAD_K}) it may "
            "be too low by more than its error: read on below."
        )
    if "no diagnosis" in tail(evidence):
        return f"{text} It took too few particles to tell whether its error can be trusted."
    return f"{text} Nothing speaks against its error: Pareto k is below {BAD_K} everywhere."


def _exact(evidence: Evidence) -> bool:
    return bool(evidence.notes.get("exact"))


def _short(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "unknown"
