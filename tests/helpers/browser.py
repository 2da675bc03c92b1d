"""A page as headless Chromium shows it."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

CHROMIUM = shutil.which("chromium")
PHONE = 390  # pixels

in_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def run(page, out, *options):
    """What the browser prints when it opens a page."""
    return subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--user-data-dir={out / 'profile'}", *options, page.as_uri()],
        check=True, capture_output=True, text=True, timeout=300,
    ).stdout  # fmt: skip


def shoot(page, out, *options, width=1000, height=5200):
    """What the browser shows of a page, as ``(height, width, 3)``."""
    size = f"--window-size={width},{height}"
    run(page, out.parent, size, f"--screenshot={out}", *options)
    return np.asarray(Image.open(out).convert("RGB")).astype(int)


def width_on_a_phone(page, out):
    """How wide a page becomes on a phone. A browser's window is not as narrow as that, but a frame
    in it is, and tells.
    """
    frame = out / "frame.html"
    frame.write_text(
        f'<body><iframe id="f" src="{page.as_uri()}" style="width:{PHONE}px;height:800px;border:0">'
        "</iframe><script>onload = () => document.title = "
        "document.getElementById('f').contentDocument.documentElement.scrollWidth</script>"
    )
    options = "--allow-file-access-from-files", "--dump-dom", "--virtual-time-budget=20000"
    return int(re.search(r"<title>(\d+)</title>", run(frame, out, *options))[1])
