"""The page of a run: what it holds, and in a browser, light, dark, and as wide as a phone."""

import re

import numpy as np
import pytest
from helpers.browser import PHONE, in_browser, shoot, width_on_a_phone

import pyrovae as pv


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    small = {"class_path": "MLP", "init_args": {"hidden": [16]}}
    method = {"class_path": "ImportanceSampling", "init_args": {"num_particles": 30}}
    config = pv.Config(epochs=2, limit=60, encoder=small, decoder=small, method=method)
    return pv.train(config, tmp_path_factory.mktemp("page") / "run").page


def test_a_run_has_its_whole_page(page):
    text = page.read_text(encoding="utf-8")
    captions = re.findall(r'<img class="(svg|png)" src="data:image/[^"]+" alt="([^"]+)"', text)
    starts = ["Bound", "Test data", "Samples", "Test data", "Codes", "Where", "What", "log p(x)"]
    kinds = ["svg", "png", "png", "png", "svg", "svg", "svg", "svg"]
    assert [kind for kind, _ in captions] == kinds
    for (_, caption), start in zip(captions, starts, strict=True):
        assert caption.startswith(start)
    assert re.search(r'class="verdict">(No b|B|W)[a-z]+ than the same likelihood', text)
    assert "1.44 bits" in text
    evidence = pv.Evidence.load(page.with_name("evidence.nc"))
    assert f"{evidence.mean():.3f}".replace("-", "\N{MINUS SIGN}") in text
    assert ": null" not in text
    assert "None" not in text


@in_browser
def test_light_and_dark(page, tmp_path):
    light = shoot(page, tmp_path / "light.png")
    dark = shoot(page, tmp_path / "dark.png", "--blink-settings=preferredColorScheme=0")
    for shown, ground in ((light, (255, 255, 255)), (dark, (20, 23, 26))):
        share = (shown == ground).all(-1).mean()
        assert share > 0.5
        # The drawings have the page's ground, too: no white sheet on a dark page.
        other = (shown == ((255, 255, 255) if ground[0] < 99 else (20, 23, 26))).all(-1).mean()
        assert other < 0.03  # white pixels of the digits
    # The lines of the learning curve, in the colours of each side.
    for shown, colour in ((light, (0, 114, 178)), (dark, (86, 180, 233))):
        assert (np.abs(shown - colour).sum(-1) < 9).sum() > 300


@in_browser
def test_nothing_is_wider_than_a_phone(page, tmp_path):
    assert width_on_a_phone(page, tmp_path) == PHONE
