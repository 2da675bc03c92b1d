"""The page of a run: what it holds, and in a browser, light, dark, and as wide as a phone."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

import pyrovae as pv

CHROMIUM = shutil.which("chromium")
PHONE = 390  # pixels

in_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def shoot(page, out, *options, width=1000, height=5200):
    """What the browser shows of a page, as ``(height, width, 3)``."""
    subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--user-data-dir={out.parent / 'profile'}", f"--window-size={width},{height}",
         f"--screenshot={out}", *options, page.as_uri()],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    return np.asarray(Image.open(out).convert("RGB")).astype(int)


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
    """A browser's window is not as narrow as a phone, but a frame in it is: it tells how wide its
    page has become.
    """
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<body><iframe id="f" src="{page.as_uri()}" style="width:{PHONE}px;height:800px;border:0">'
        "</iframe><script>onload = () => document.title = "
        "document.getElementById('f').contentDocument.documentElement.scrollWidth</script>"
    )
    done = subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu",
         f"--user-data-dir={tmp_path / 'profile'}", "--allow-file-access-from-files",
         "--hide-scrollbars",
         "--dump-dom", "--virtual-time-budget=20000", frame.as_uri()],
        check=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert f"<title>{PHONE}</title>" in done.stdout
