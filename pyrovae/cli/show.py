"""What a run shows of itself: lines on the terminal, figures beside its files, and its page."""

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pyrovae as pv
from pyrovae.cli.conditions import arguments, describe, drawing, is_conditional
from pyrovae.data import Splits
from pyrovae.evidence import Evidence
from pyrovae.runs import page as report
from pyrovae.runs.run import Run

__all__ = ["binarized", "drawn", "figures", "headline", "say", "seeded", "span", "write_page"]


def headline(evidence: Evidence, name: str, part: str, conditional: bool = False) -> str:
    """The result in a line."""
    which = "held-out" if part != "train" else "training"
    of = "log-likelihood given y" if conditional else "log-likelihood"
    low, high = evidence.interval()
    return (
        f"{which} {of}: {evidence.mean():.3f} ± {evidence.monte_carlo_error():.3f} (Monte Carlo) "
        f"± {evidence.test_set_error():.3f} (test set) nats per datum; "
        f"{len(evidence):,} {part} data of {name}, 95 % Monte Carlo interval {low:.3f} to {high:.3f}"
    )


def figures(
    run: Run, vae: Any, splits: Splits, evidence: Evidence | None, best_epoch: int | None
) -> list[tuple[str, Path]]:
    """Those that this run can have, each with its caption."""
    made: list[tuple[str, Path]] = []
    rows = run.rows
    for path in drawn(
        lambda p: report.learning_curve(rows, p, best_epoch=best_epoch),
        run.path / "learning_curve.png",
    ):
        made.append(("Learning curve", path))
    if evidence is not None:
        for path in drawn(lambda p: report.evidence_figure(evidence, p), run.evidence):
            made.append(
                ("log p(x) of each test datum, and where its estimate is not to be trusted", path)
            )
    if report.is_image(vae.data_shape):
        device = next(vae.parameters()).device
        low, high = span(splits.train)
        test = arguments(vae, splits, "test")
        shown = [data[:40].to(device) for data in (test if isinstance(test, tuple) else (test,))]
        draws = drawing(
            vae,
            64,
            mean=True,
            condition=describe(vae, splits).get("condition"),
            splits=lambda: splits,
        )
        samples, seen = seeded(run.given.seed, lambda: (draws.draw(), vae.reconstruct(*shown)))
        report.image_grid(
            samples, run.path / "samples.png", columns=draws.columns, low=low, high=high
        )
        report.reconstruction_grid(
            shown[0], seen, run.path / "reconstructions.png", low=low, high=high
        )
        what = f"Samples: E[x | z] for z drawn from the prior{draws.given}"
        made.append((what, run.path / "samples.png"))
        made.append(
            (
                "Test data (upper rows), their reconstructions (lower rows)",
                run.path / "reconstructions.png",
            )
        )
    return made


def write_page(
    run: Run,
    vae: Any,
    splits: Splits,
    evidence: Evidence | None,
    figures: list[tuple[str, Path]],
    history: str,
) -> None:
    """The run on one HTML page."""
    where = next(vae.parameters()).device
    versions = f"pyrovae {pv.__version__}, torch {torch.__version__}, Python {platform.python_version()}, {where}"
    again = f"pyrovae train --config {run.config}\npyrovae evaluate {run.path}\npyrovae sample {run.path}"
    report.page(
        run.path / "report.html",
        title=f"{run.path.name}: {type(vae).__name__} on {splits.name}",
        headline=headline(evidence, splits.name, "test", is_conditional(vae))
        if evidence is not None
        else "no held-out log-likelihood",
        figures=figures,
        sections=[
            *([("Evidence", repr(evidence))] if evidence is not None else []),
            ("Model", repr(vae)),
            ("Data", repr(splits) + binarized(run.given)),
            ("Training", history),
            ("Configuration", run.config.read_text(encoding="utf-8")),
            ("Again", again),
            ("Made with", versions),
        ],
    )


def drawn(draw: Callable[[Path], Any], beside: Path) -> list[Path]:
    """A figure beside a file, if there is matplotlib, and no other figure of that name."""
    path = beside.with_suffix(".png")
    if path.exists():
        return []
    try:
        draw(path)
    except ImportError:
        say("figures", f"no {path.name}: it needs matplotlib (pip install 'pyrovae[plots]')")
        return []
    return [path]


def binarized(given: Any) -> str:
    """How the data became black and white, to end a line."""
    how = {
        "dynamic": "; binarised anew for each training batch, once for validation and test",
        "stochastic": "; binarised once with the grey values as probabilities",
        "threshold": "; binarised at one half",
    }
    return how.get(given.binarize, "")


def span(x: Tensor) -> tuple[float, float]:
    """What to show as black and white: [0, 1] where data lie in it, else their range."""
    low, high = float(x.min()), float(x.max())
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)


def seeded(seed: int, draw: Callable[[], Any]) -> Any:
    """What a function gives with the global random state at a seed, which it leaves as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return draw()


def say(what: str, text: str) -> None:
    """A line, or several, under a word at the left."""
    head, *rest = text.splitlines()
    print("\n".join([f"{what:<10}{head}", *(f"{'':<10}{line}" for line in rest)]), flush=True)
