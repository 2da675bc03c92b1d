"""Pictures of runs: PNG files, and drawings that are light or dark as the page is."""

import io

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

import pyrovae as pv
from pyrovae.plots.style import DARK
from pyrovae.runs import figures


def read(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def line(figure):
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], linewidth=5)


def count(image, colour):
    want = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(image - want).sum(-1) < 9).sum())


def test_a_grid_is_what_plots_makes_of_it():
    images = torch.rand(6, 5, 4)
    shown = read(figures.image_grid(images, columns=3))
    np.testing.assert_array_equal(shown, pv.plots.images.grid(images, columns=3))


def test_png_is_light():
    shown = read(figures.png(line))
    assert count(shown, "#0072B2") > 500
    assert count(shown, "#ffffff") > shown.shape[0] * shown.shape[1] / 2


def test_a_drawing_names_its_colours_once_for_each_side():
    text = figures.svg(line).decode()
    head, _, body = text.partition("</style>")
    for i, (light, dark) in enumerate(DARK.items()):
        assert f"--c{i}:{light};" in head.split("@media")[0]
        assert f"--c{i}:{dark};" in head.split("@media")[1]
        assert light.lower() not in body
    assert "stroke: var(--c0)" in body  # the line
    assert text == figures.svg(line).decode()  # a page is the same again


def test_nothing_of_matplotlib_is_changed():
    import matplotlib.pyplot as plt

    before, opened = dict(matplotlib.rcParams), plt.get_fignums()
    figures.svg(line)
    figures.png(line)
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == opened


COLUMNS = {"log_marginal": np.linspace(-5, -1, 20), "standard_error": np.full(20, 0.1)}


@pytest.mark.parametrize(
    ("k", "panels"), [(None, 1), (np.full(20, np.inf), 1), (np.linspace(0, 1, 20), 2)]
)
def test_no_place_is_left_empty_where_k_is_unknown(k, panels):
    from matplotlib.figure import Figure

    columns = COLUMNS if k is None else {**COLUMNS, "pareto_k": k}
    figure = Figure()
    figures.evidence_figure(pv.Evidence.from_columns(columns), figure)
    parts = figure.subfigs or [figure]
    assert sum(len(part.axes) for part in parts) == panels
