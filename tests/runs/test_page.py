"""The page of a run holds its pictures, leads with its result, and loads nothing from elsewhere."""

import base64
import re

import torch

from pyrovae.runs.figures import image_grid
from pyrovae.runs.page import write_page

CONTENT = {
    "title": "<b>VAE</b> on digits",
    "name": "run",
    "result": {
        "number": "-23.918",
        "symbol": "log p(x)",
        "meaning": "is an average.",
        "caution": "p < 0.05 & more",
        "facts": [("Monte Carlo error", "± 0.002")],
    },
    "declaration": "VAE(<script>alert(1)</script>)",
    "data": "digits",
    "training": "2 epochs",
    "tables": [("Epochs", "1 2")],
    "commands": ["pyrovae train --config run/config.yaml"],
    "config": "epochs: 2",
    "versions": "pyrovae",
}


def test_page_holds_its_pictures_and_escapes_its_text(tmp_path):
    image_grid(torch.rand(4, 8, 8), tmp_path / "grid.png")
    pictures = {"samples": (tmp_path / "grid.png", "Samples of <x>")}
    write_page(tmp_path / "report.html", figures=pictures, **CONTENT)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    (picture,) = re.findall(r"base64,([^\"]+)", text)
    assert base64.b64decode(picture) == (tmp_path / "grid.png").read_bytes()
    assert "<script" not in text
    assert "&lt;b&gt;VAE&lt;/b&gt;" in text
    assert "p &lt; 0.05 &amp; more" in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)  # nothing is loaded from elsewhere


def test_page_goes_from_the_result_to_how_to_reproduce_it(tmp_path):
    image_grid(torch.rand(4, 8, 8), tmp_path / "grid.png")
    names = ("learning_curve", "samples", "reconstructions", "evidence")
    pictures = {name: (tmp_path / "grid.png", f"About {name}") for name in names}
    write_page(tmp_path / "report.html", figures=pictures, **CONTENT)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    body = text[text.index("<body>") :]
    order = ["-23.918", "VAE(", *(f"About {name}" for name in names), "pyrovae train --config"]
    places = [body.index(word) for word in order]
    assert places == sorted(places)
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text


def test_page_without_evidence_says_so(tmp_path):
    write_page(tmp_path / "report.html", figures={}, **{**CONTENT, "result": None})
    assert "no held-out log-likelihood" in (tmp_path / "report.html").read_text(encoding="utf-8")
