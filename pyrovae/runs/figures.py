"""The figures of a run, as PNG."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np

from pyrovae import plots
from pyrovae.evidence import Evidence
from pyrovae.plots.images import grid
from pyrovae.plots.style import DARK

__all__ = ["evidence_figure", "has_k", "image_grid", "png", "svg", "svg_and_png"]


def png(draw: Callable[[Any], Any]) -> bytes:
    """What a function draws on the figure that it is given.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    (content,) = _drawn(draw, "png")
    return content


def svg(draw: Callable[[Any], Any]) -> bytes:
    """The same as a drawing that is light or dark as the page is that shows it.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    (content,) = _drawn(draw, "svg")
    return _light_and_dark(content.decode()).encode()


def svg_and_png(draw: Callable[[Any], Any]) -> tuple[bytes, bytes]:
    """Both, drawn once."""
    drawing, content = _drawn(draw, "svg", "png")
    return _light_and_dark(drawing.decode()).encode(), content


def _drawn(draw: Callable[[Any], Any], *kinds: str) -> list[bytes]:
    from matplotlib.figure import Figure

    found = []
    with plots.style():
        # A figure of its own, not pyplot's: no backend is chosen and no state is left behind.
        figure = Figure(layout="constrained")
        draw(figure)
        for kind in kinds:
            file = io.BytesIO()
            metadata = {"Date": None, "Creator": None} if kind == "svg" else None
            figure.savefig(file, format=kind, metadata=metadata)
            figure.set_layout_engine("none")  # it is laid out now
            found.append(file.getvalue())
    return found


def _light_and_dark(text: str) -> str:
    """A drawing with its colours as variables, which have other values on a dark page."""
    names = {light: f"--c{i}" for i, light in enumerate(name.lower() for name in DARK)}
    for light, name in names.items():
        text = text.replace(light, f"var({name})")
    sides = [
        "".join(f"{name}:{colour};" for name, colour in zip(names.values(), colours, strict=True))
        for colours in (DARK, DARK.values())
    ]
    style = (
        f"<style>:root{{{sides[0]}}}@media (prefers-color-scheme:dark){{:root{{{sides[1]}}}}}"
        "</style>"
    )
    head, end, rest = text.partition("<defs>")
    return f"{head}{style}{end}{rest}"


def image_grid(images: Any, **how: Any) -> bytes:
    """Images in rows, as :func:`pyrovae.plots.images.grid` makes them. It needs no matplotlib."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(grid(images, **how)).save(file, format="png", optimize=True)
    return file.getvalue()


def has_k(evidence: Evidence) -> bool:
    """Whether there is a diagnosis by Pareto k to be drawn."""
    return "pareto_k" in evidence.dataset and bool(np.isfinite(evidence.pareto_k.values).any())


def evidence_figure(evidence: Evidence, figure: Any) -> None:
    """log p(x) of each datum, and below it the Pareto k where there is one."""
    if not has_k(evidence):
        plots.evidence(evidence, figure)
        return
    figure.set_size_inches(figure.get_figwidth(), 5.8)
    above, below = figure.subfigures(2, 1, height_ratios=(5, 4))
    plots.evidence(evidence, above)
    plots.pareto_k(evidence, below)
