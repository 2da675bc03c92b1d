"""The report of a finished run: its figures, and one HTML page that holds everything."""

import base64
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pyrovae import files
from pyrovae.data import Splits
from pyrovae.evidence import Evidence
from pyrovae.models.base import Model
from pyrovae.runs import figures
from pyrovae.runs.conditions import arguments, condition_of, drawing
from pyrovae.runs.manifest import versions
from pyrovae.runs.run import Run
from pyrovae.runs.terminal import attempt, binarized, say, seeded, whole
from pyrovae.runs.trust import names_code
from pyrovae.training.history import History

__all__ = ["made_by", "number", "report", "write_page"]


def report(
    run: Run, vae: Model, splits: Splits, evidence: Evidence | None, history: History
) -> None:
    """Write the figures and the page of a run; each one that cannot be made is a warning."""
    made: dict[str, tuple[Path, str]] = {}

    def add(name: str, caption: str, make: Callable[[Path], Any]) -> None:
        path = run.path / f"{name}.png"
        if not path.exists() and attempt(path.name, lambda: whole(make, path)):
            made[name] = (path, caption)

    add(
        "learning_curve",
        "Bounds over the epochs, and the two terms of the training bound",
        lambda path: figures.learning_curve(history.rows, path, best_epoch=history.best_epoch),
    )
    if evidence is not None:
        add(
            "evidence",
            "log p(x) of each test datum with two standard errors, and the Pareto k of its "
            "estimate",
            lambda path: figures.evidence_figure(evidence, path),
        )
    if figures.is_image(vae.data_shape):
        attempt("pictures", lambda: _pictures(run, vae, splits, add))
    if attempt(run.page.name, lambda: _page(run, vae, splits, evidence, history, made)):
        say("report", str(run.page))


def _pictures(run: Run, vae: Any, splits: Splits, add: Callable) -> None:
    device = next(vae.parameters()).device
    low, high = figures.span(splits.train[:10_000])
    test = arguments(vae, splits, "test")
    shown = [data[:40].to(device) for data in (test if isinstance(test, tuple) else (test,))]
    condition = condition_of(vae, splits).get("condition")
    draws = drawing(vae, 64, mean=True, condition=condition, splits=lambda: splits)
    # Both in one seeded stretch, whatever becomes of the files.
    samples, seen = seeded(run.config.seed, lambda: (draws.draw(), vae.reconstruct(*shown)))
    add(
        "samples",
        f"E[x | z] for z drawn from the prior{draws.given}",
        lambda path: figures.image_grid(samples, path, columns=draws.columns, low=low, high=high),
    )
    add(
        "reconstructions",
        "Test data (upper rows), and their reconstructions below",
        lambda path: figures.reconstruction_grid(shown[0], seen, path, low=low, high=high),
    )


def _page(
    run: Run,
    vae: Model,
    splits: Splits,
    evidence: Evidence | None,
    history: History,
    made: dict[str, tuple[Path, str]],
) -> None:
    seconds = float(history["seconds"].sum())
    trust = " --trust" * names_code(vars(run.config))
    stopped = ", when patience ran out" if history.stopped_early else ""
    write_page(
        run.page,
        title=f"{type(vae).__name__} on {splits.name}",
        name=run.path.name,
        result=None if evidence is None else _result(evidence, splits.name),
        declaration=repr(vae),
        data=repr(splits).removeprefix("Splits(").removesuffix(")")
        + binarized(run.config.binarize),
        training=f"{len(history)} epochs in {seconds:.1f} s{stopped}; the weights of epoch "
        f"{history.best_epoch} were kept.",
        figures=made,
        tables=[("Epochs", repr(history))]
        + ([] if evidence is None else [("Evidence in full", repr(evidence))]),
        commands=[
            f"pyrovae train --config {run.config_file}{trust}",
            f"pyrovae evaluate {run.path}{trust}",
            f"pyrovae sample {run.path}{trust}",
        ],
        config=str(run.config),
        versions=made_by(next(vae.parameters()).device),
    )


def _result(evidence: Evidence, name: str) -> dict[str, Any]:
    """The number, what it means, and the facts beside it."""
    low, high = evidence.interval()
    given = evidence.dataset.attrs.get("given")
    side = {"lower": "lies below", "upper": "lies above"}[evidence.bound]
    exact = bool(evidence.notes.get("exact"))
    caution = f"It is an estimate by {evidence.method} that on average {side} the true value."
    facts = [
        ("Monte Carlo error", f"± {evidence.monte_carlo_error():.3g}"),
        ("Test-set error", f"± {evidence.test_set_error():.3g}"),
        ("95 % Monte Carlo interval", number(low) + " to " + number(high)),
    ]
    if int(evidence.dataset.attrs["num_dims"]):
        facts.append(("Bits per dimension (lower is better)", f"{evidence.bits_per_dim:.4f}"))
    if not (math.isnan(evidence.share_flagged) or exact):
        facts.append(("Data with Pareto k above 0.7", f"{evidence.share_flagged:.1%}"))
        if evidence.share_flagged > 0:
            caution += (
                " For data with a Pareto k above 0.7 it may be too low by more than its error."
            )
    return {
        "number": number(evidence.mean()),
        "symbol": "log p(x | y)" if given else "log p(x)",
        "meaning": f"is the average log-likelihood that the model gives to {len(evidence):,} test "
        f"data of {name}{' given their labels' * bool(given)}, which it was not trained on. Higher "
        "is better.",
        "caution": "The number is exact, up to rounding." if exact else caution,
        "facts": facts,
    }


def made_by(where: object) -> str:
    """The versions that made a page, and where."""
    known = versions()
    return f"pyrovae {known['pyrovae']}, torch {known['torch']}, Python {known['python']}, {where}"


def number(value: float) -> str:
    """A number as pages show it."""
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def write_page(path: Path, template: str = "page.html.jinja", **content: Any) -> None:
    """Fill a template and write a page that needs no other file.

    Args:
        path: The file to write.
        template: The template, in this folder.
        content: What the template shows. ``figures`` are PNG files with captions, by name; they are
            put into the page.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pyrovae.runs", "."), autoescape=True, undefined=StrictUndefined
    )
    pictures: dict[str, Sequence[str]] = {
        name: (base64.b64encode(file.read_bytes()).decode(), caption)
        for name, (file, caption) in content.pop("figures").items()
    }
    text = environment.get_template(template).render(figures=pictures, **content)
    files.write(path, text)
