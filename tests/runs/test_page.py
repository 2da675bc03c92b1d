"""The page of a run holds its pictures, leads with its result, and loads nothing from elsewhere."""

import base64
import re

import torch

from pyrovae.runs import figures
from pyrovae.runs.page import write_page
from pyrovae.runs.pictures import Picture

CONTENT = {
    "title": "<b>VAE</b> on digits",
    "name": "run",
    "reason": "",
    "result": {
        "number": "-23.918",
        "symbol": "log p(x)",
        "verdict": ["Better than nothing.", "p < 0.05 & more"],
        "meaning": "It is an average.",
        "facts": [("Monte Carlo error", "± 0.002")],
    },
    "declaration": "VAE(<script>alert(1)</script>)",
    "data": "digits",
    "training": "2 epochs",
    "diagnosis": {"text": ["All is well."], "command": "pyrovae evaluate run"},
    "tables": [("Epochs", "1 2")],
    "commands": ["pyrovae train --config run/config.yaml"],
    "config": "epochs: 2",
    "versions": "pyrovae",
}


def test_page_holds_its_pictures_and_escapes_its_text(tmp_path):
    content = figures.image_grid(torch.rand(4, 8, 8))
    pictures = {"samples": Picture(content, "Samples of <x>")}
    write_page(tmp_path / "report.html", figures=pictures, **CONTENT)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    (picture,) = re.findall(r"base64,([^\"]+)", text)
    assert base64.b64decode(picture) == content
    assert "<script" not in text
    assert "&lt;b&gt;VAE&lt;/b&gt;" in text
    assert "p &lt; 0.05 &amp; more" in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)  # nothing is loaded from elsewhere


def test_page_goes_from_the_result_to_how_to_reproduce_it(tmp_path):
    content = figures.image_grid(torch.rand(4, 8, 8))
    names = ("learning_curve", "data", "samples", "reconstructions", "codes", "nats", "units")
    names += ("evidence",)
    pictures = {name: Picture(content, f"About {name}") for name in names}
    write_page(tmp_path / "report.html", figures=pictures, **CONTENT)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    body = text[text.index("<body>") :]
    order = ["-23.918", "Better than nothing", "VAE(", *(f"About {name}" for name in names)]
    order.append("pyrovae train --config")
    places = [body.index(word) for word in order]
    assert places == sorted(places)
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text


def test_page_without_evidence_says_so(tmp_path):
    content = {**CONTENT, "result": None, "diagnosis": None, "reason": "Its guide has no density."}
    write_page(tmp_path / "report.html", figures={}, **content)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "no held-out log-likelihood" in text
    assert "Its guide has no density." in text


def test_page_of_a_good_estimate_gives_no_command(tmp_path):
    content = {**CONTENT, "diagnosis": {"text": ["There is nothing to be done."]}}
    write_page(tmp_path / "report.html", figures={}, **content)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "There is nothing to be done." in text
    assert "pyrovae evaluate run" not in text
