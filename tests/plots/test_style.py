"""One look, and no setting of matplotlib is left behind."""

import io
import re
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

import pyrovae as pv
from pyrovae.plots.style import DARK, WIDTH

Z = np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])


def saved(figure=None):
    file = io.BytesIO()
    (figure or plt).savefig(file, format="png")
    return np.asarray(Image.open(file).convert("RGB"))


def test_settings_are_those_of_before():
    before = dict(matplotlib.rcParams)
    pv.plots.codes(Z)
    assert dict(matplotlib.rcParams) == before
    with pytest.raises(ValueError, match="shape"), pv.plots.style(dark=True):
        pv.plots.codes(Z[0])
    assert dict(matplotlib.rcParams) == before


def test_what_a_backend_sets_at_the_first_figure_stays():
    """As in a notebook, whose backend switches the interactive mode on: without it, later figures
    are not shown.
    """
    assert not matplotlib.is_interactive()
    try:
        with pv.plots.style():
            matplotlib.interactive(True)
        assert matplotlib.is_interactive()
    finally:
        matplotlib.interactive(False)


def test_savefig_after_a_figure_is_not_blank():
    pv.plots.codes(Z)
    assert saved().std() > 1


def test_on_dark_ground():
    with pv.plots.style(dark=True):
        axes = pv.plots.codes(Z)
    assert to_hex(axes.figure.get_facecolor()) == "#14171a"
    assert to_hex(axes.get_lines()[0].get_color()) == DARK["#0072B2"].lower()
    assert to_hex(axes.xaxis.label.get_color()) == "#e4e7ea"
    shown = saved()  # outside of the style, too
    assert shown.mean() < 60


def test_all_figures_have_one_width():
    for draw in (
        lambda axes: pv.plots.codes(Z, None, axes),
        lambda axes: pv.plots.marginals(Z, Z, axes),
    ):
        assert draw(None).figure.get_figwidth() == WIDTH
        figure = Figure()
        assert draw(figure).figure is figure
        assert figure.get_figwidth() == WIDTH


def test_given_axes_are_drawn_on():
    figure, axes = plt.subplots(1, 2, figsize=(9, 3))
    assert pv.plots.codes(Z, None, axes[1]) is axes[1]
    assert not axes[0].has_data()
    assert figure.get_figwidth() == 9


def test_a_figure_of_three_panels_takes_three_axes():
    history = pv.History()
    with pytest.raises(ValueError, match="has no epochs"):
        history.plot()
    history.rows = [dict.fromkeys(history.keys(), 1.0)]
    _, axes = plt.subplots(1, 2)
    with pytest.raises(ValueError, match="takes 3 axes, found 2"):
        history.plot(axes)


def luminance(colour):
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def test_colours_can_be_seen_on_their_ground():
    """A contrast of 3 and more on dark ground, and of 2 on white, where every line has a mark or a
    dash of its own as well; 3 is what WCAG asks of graphics.
    """
    white, black = luminance("#ffffff"), luminance("#14171a")
    for light, dark in DARK.items():
        if light != "#ffffff":
            assert (white + 0.05) / (luminance(light) + 0.05) > 2
            assert (luminance(dark) + 0.05) / (black + 0.05) > 3


def test_text_in_place_of_numbers_is_refused():
    with pytest.raises(TypeError, match="takes numbers"):
        pv.plots.samples([["a", "b"]])


def test_every_figure_is_on_the_page_of_figures():
    page = (Path(__file__).parents[2] / "docs" / "plots.md").read_text(encoding="utf-8")
    for name in pv.plots.__all__:
        assert re.search(rf"plots\.{name}\b", page), name
