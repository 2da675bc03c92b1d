"""Figures show the values that they are given."""

import numpy as np
import pytest
import torch
from PIL import Image

from pyrovae.runs import figures

ROWS = [
    {
        "epoch": i + 1,
        "train_bound": -50 + i,
        "valid_bound": -51 + i,
        "reconstruction": -40 + i,
        "kl": 10.0,
    }
    for i in range(30)
]


def read(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((8, 8), True),
        ((1, 8, 8), True),
        ((3, 8, 8), True),
        ((2, 8, 8), False),
        ((64,), False),
        ((8, 1), False),
    ],
)
def test_what_is_an_image(shape, expected):
    assert figures.is_image(shape) is expected


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_every_pixel_is_where_it_belongs(tmp_path, channels):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((6, *(() if channels is None else (channels,)), 5, 4), generator=generator)
    figures.image_grid(images, tmp_path / "grid.png", columns=3)
    shown = read(tmp_path / "grid.png")
    flat = images.reshape(6, -1, 5, 4).expand(-1, 3, -1, -1)
    # Three images of four pixels in about 640: a factor of 53, and half of that between images.
    zoom, gap = 53, 26
    for n in range(6):
        top, left = gap + n // 3 * (5 * zoom + gap), gap + n % 3 * (4 * zoom + gap)
        for i in range(5):
            for j in range(4):
                square = shown[
                    top + i * zoom : top + (i + 1) * zoom, left + j * zoom : left + (j + 1) * zoom
                ]
                level = (flat[n, :, i, j] * 255).round().int().tolist()
                assert (square.reshape(-1, 3) == level).all(), (n, i, j)


def test_values_beyond_the_span_are_clipped(tmp_path):
    images = torch.tensor([-2.0, 0.0, 2.0, 4.0]).reshape(1, 1, 4).expand(1, 4, 4)
    figures.image_grid(images, tmp_path / "grid.png", columns=1, low=0.0, high=2.0)
    row = read(tmp_path / "grid.png")[400, :, 0]
    assert [row[80 + 160 * j] for j in range(4)] == [0, 0, 255, 255]


def test_reconstructions_stand_below_their_data(tmp_path):
    data, seen = torch.zeros(5, 4, 4), torch.ones(5, 4, 4)
    figures.reconstruction_grid(data, seen, tmp_path / "grid.png", columns=5)
    column = read(tmp_path / "grid.png")[:, 50, 0]
    levels = [int(v) for v, before in zip(column[1:], column, strict=False) if v != before]
    assert levels == [0, 128, 255, 128]


def test_learning_curve_draws_both_bounds(tmp_path):
    figures.learning_curve(ROWS, tmp_path / "with.png", best_epoch=20)
    without = [{**row, "valid_bound": float("nan")} for row in ROWS]
    figures.learning_curve(without, tmp_path / "without.png")
    orange = np.array([255, 127, 14])

    def pixels(name):
        above = read(tmp_path / name)[:400]
        return int((np.abs(above - orange).sum(-1) < 30).sum())

    assert pixels("with.png") > 300
    assert pixels("without.png") == 0


def test_learning_curve_leaves_matplotlib_as_it_was(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    figures.learning_curve(ROWS, tmp_path / "curve.png")
    assert dict(matplotlib.rcParams) == before


def test_one_row_is_a_curve(tmp_path):
    figures.learning_curve(ROWS[:1], tmp_path / "curve.png", best_epoch=1)
    assert read(tmp_path / "curve.png").std() > 0


def test_evidence_figure_shows_the_diagnosis_where_there_is_one(tmp_path):
    from pyrovae import Evidence

    columns = {"log_marginal": np.linspace(-5, -1, 20), "standard_error": np.full(20, 0.1)}
    figures.evidence_figure(Evidence.from_columns(columns), tmp_path / "without.png")
    diagnosed = {**columns, "pareto_k": np.linspace(0.0, 1.0, 20)}
    figures.evidence_figure(Evidence.from_columns(diagnosed), tmp_path / "with.png")
    red = np.array([214, 39, 40])

    def pixels(name):
        return int((np.abs(read(tmp_path / name) - red).sum(-1) < 30).sum())

    # Too few weights for a diagnosis is no diagnosis of bad ones.
    unknown = {**columns, "pareto_k": np.full(20, np.inf)}
    figures.evidence_figure(Evidence.from_columns(unknown), tmp_path / "unknown.png")
    assert pixels("unknown.png") == 0
    assert pixels("with.png") > 50
    assert pixels("without.png") == 0


def test_axes_figure_draws_on_axes_of_its_own(tmp_path):
    figures.axes_figure(
        lambda axes: axes.plot([0, 1], [0, 1], color="red", linewidth=5), tmp_path / "line.png"
    )
    assert ((read(tmp_path / "line.png") == [255, 0, 0]).all(-1)).sum() > 500
