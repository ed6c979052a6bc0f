"""The report page in a headless Chromium, at the width of a desktop and of a phone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_report import SCORES, make_run, reported

from dreamer.config.config import load_config
from dreamer.tasks import TASK_LISTS

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Put at the end of a copy of the page: what a reader would see of its layout.
MEASURE = """<script>
const size = node => parseFloat(getComputedStyle(node).fontSize);
const texts = [...document.querySelectorAll("p,li,td,th,summary,pre,figcaption,h1,h2,h3")];
const images = [...document.images];
parent.postMessage(JSON.stringify({
  width: innerWidth, scroll: document.documentElement.scrollWidth,
  smallest: Math.min(...texts.map(size)),
  broken: images.filter(i => !i.complete || !i.naturalWidth).length,
  images: images.length,
  widest: Math.max(...[...document.querySelectorAll(".grid img")].map(i => i.clientWidth)),
  narrowest: Math.min(...[...document.querySelectorAll(".grid img")].map(i => i.clientWidth)),
  columns: new Set([...document.querySelectorAll(".grid figure")].map(i => i.offsetLeft)).size,
}), "*");
</script>"""
FRAME = """<!doctype html><iframe src="page.html" style="width:{width}px;height:900px;border:0">
</iframe><pre id="found"></pre><script>
onmessage = event => document.getElementById("found").textContent = event.data;
</script>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of all twenty tasks, and a copy of it that measures itself."""
    if CHROMIUM is None:
        pytest.fail("no chromium: make test-all installs it, or apt-get install -y chromium")
    root = tmp_path_factory.mktemp("report")
    for task in TASK_LISTS["dmc20"]:
        make_run(root / "runs", load_config("small", task=task), SCORES)
    reported(root / "runs")
    page = (root / "report.html").read_text(encoding="utf-8")
    policy = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
    copy, changed = policy.subn("", page)
    assert changed == 1
    (root / "page.html").write_text(copy.replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")
    return root


def chromium(folder: Path, *words: str) -> str:
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
               f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout


def measured(folder: Path, width: int) -> dict[str, float]:
    (folder / "frame.html").write_text(FRAME.format(width=width))
    page = chromium(folder, "--window-size=1400,1000", "--dump-dom",
                    (folder / "frame.html").as_uri())
    found = re.search(r'<pre id="found">(.+?)</pre>', page)
    assert found, page[-2000:]
    return json.loads(unescape(found[1]))


@pytest.mark.parametrize("width, columns, narrowest", [(1280, 3, 300), (390, 1, 340)])
def test_at_the_width_of_a_desktop_and_of_a_phone(folder: Path, width, columns, narrowest):
    """Nothing makes the page wider than the screen; on a phone, a panel fills it."""
    seen = measured(folder, width)
    assert seen["width"] == width and seen["scroll"] <= width
    assert seen["broken"] == 0 and seen["images"] >= 1 + 20 + 1 + 1 + 20
    assert seen["columns"] >= columns and seen["smallest"] >= 12
    assert narrowest <= seen["narrowest"] <= seen["widest"] <= width
    assert seen["columns"] == 1 or width > 390


@pytest.mark.parametrize("width", [1280, 500])
def test_it_is_drawn(folder: Path, width: int):
    """The page as it is, policy included: pictures are there, not only boxes."""
    picture = folder / f"{width}.png"
    chromium(folder, f"--window-size={width},3000", f"--screenshot={picture}",
             (folder / "report.html").as_uri())
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    assert pixels.shape[1] == width and pixels.mean() > 200
    assert (pixels.std(axis=(1, 2)) > 0).mean() > 0.5  # rows that are not blank
    colours = {tuple(colour) for colour in np.unique(pixels.reshape(-1, 3), axis=0)}
    assert (0, 114, 178) in colours  # the first curve's
