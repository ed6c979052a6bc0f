"""The page in a real, headless Chromium: every control, the keyboard, two tabs, narrow windows."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from whole_runs import DebugRuns, children_of, finish, start

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
for name in ("starlette", "uvicorn", "websockets"):
    pytest.importorskip(name)
sync_api = pytest.importorskip("playwright.sync_api", reason="drives the browser: pip install it")
if CHROMIUM is None:
    pytest.skip("no chromium: make test-all installs it", allow_module_level=True)


@pytest.fixture(scope="module")
def server(debug_runs: DebugRuns) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = start("dreamer.watch", "--run", debug_runs.path, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    yield process, process.stdout.readline().split()[1]
    process.terminate()
    finish(process, 60)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser: Any, server: tuple[subprocess.Popen[str], str]) -> Iterator[Any]:
    """A tab that shows an episode from its begin; no script error and no foreign request."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(120_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: errors.append(request.url)
            if "//127.0.0.1:" not in request.url and request.url[:5] != "data:" else None)
    page.goto(server[1])
    says(page, "Acting")
    yield page
    assert errors == []
    context.close()


def says(page: Any, text: str) -> str:
    """Waits until the line on top says something; returns the line."""
    page.wait_for_selector(f"#mode:has-text('{text}')")
    return page.inner_text("#mode")


def moment(page: Any) -> int:
    found = re.search(r"moment (\d+)", page.inner_text("#mode"))
    assert found
    return int(found[1])


def goes_on(page: Any, steps: int = 3) -> None:
    """Waits until the moment has changed some times; slow machines show not each one."""
    for _ in range(steps):
        before = page.inner_text("#mode")
        while page.inner_text("#mode") == before:
            page.wait_for_timeout(20)


def is_drawn(page: Any, selector: str) -> bool:
    """Whether a canvas has more than one colour."""
    return page.eval_on_selector(selector, """canvas => {
        const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        return new Set(new Uint32Array(data.buffer)).size > 1;
    }""")


def test_every_control(page: Any):
    for selector in (".truth canvas", ".model canvas", ".samples canvas", ".curves", ".bars"):
        assert is_drawn(page, selector), selector
    page.click("#play")
    says(page, "paused")
    before = moment(page)
    page.click("#step")
    says(page, f"moment {before + 1} ")
    page.select_option("#speed", "30")
    page.fill("#seed", "9")
    page.click("#again")
    says(page, "moment 0 ")
    page.check("#noise")
    page.select_option("#samples", "4")
    page.wait_for_selector(".samples canvas:nth-child(4)")
    page.select_option(".checkpoint", "240")
    page.wait_for_selector("h2:has-text('240 steps')")
    page.click("#new")
    page.click("#play")
    goes_on(page)
    assert page.input_value("#seed") == "10"
    # A click on the curves: the dream from there.
    page.click(".curves", position={"x": 60, "y": 100})
    assert "from moment" in says(page, "Dreaming")
    page.eval_on_selector("#actions input", """input => {
        input.value = 0.5;
        input.dispatchEvent(new Event("input"));
    }""")
    says(page, "you act")
    page.check("#by-actor")
    says(page, "the agent acts")
    page.click("#truth")
    page.click("#leave")
    says(page, "Acting")
    page.select_option("#samples", "1")
    page.click("#record")
    page.wait_for_selector("#record:has-text('Stop')")
    page.select_option("#compare", "latest")
    page.wait_for_selector(".side:nth-child(2)")
    page.select_option("#compare", "")
    page.wait_for_selector(".side:nth-child(2)", state="detached")
    goes_on(page)
    page.click("#record")
    with page.expect_download() as download:
        page.click("#recording")
    assert Path(download.value.path()).read_bytes().startswith(b"GIF89a")


def test_the_keyboard_alone(page: Any):
    page.keyboard.press("n")
    page.keyboard.press("Space")
    says(page, "paused")
    before = moment(page)
    page.keyboard.press(".")
    says(page, f"moment {before + 1} ")
    page.keyboard.press("d")
    says(page, "Dreaming")
    page.keyboard.press("Space")
    page.keyboard.down("ArrowRight")
    says(page, "you act")
    page.keyboard.up("ArrowRight")
    page.keyboard.press("b")
    page.keyboard.press("a")
    says(page, "the agent acts")
    page.keyboard.press("Escape")
    says(page, "Acting")
    for _ in range(40):  # by the tabulator to the curves, which choose a moment
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('plots')"):
            break
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    says(page, "Dreaming")
    page.keyboard.press("Escape")


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_wider_than_the_window(page: Any, width: int):
    page.set_viewport_size({"width": width, "height": 900})
    for key, text in (("n", "Acting"), ("d", "Dreaming")):
        page.keyboard.press(key)
        says(page, text)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    smallest = page.evaluate("""Math.min(...[...document.querySelectorAll("p, label, button, dd")]
        .map(node => parseFloat(getComputedStyle(node).fontSize)))""")
    assert smallest >= 14
    page.keyboard.press("Escape")


def test_two_tabs_a_reload_and_a_killed_environment(page: Any, server: Any):
    other = page.context.new_page()
    other.goto(server[1])
    page.click("#new")
    says(page, "Acting")
    page.click("#play") if page.inner_text("#play") == "Play" else None
    goes_on(other)
    other.reload()
    says(other, "Acting")
    other.close()
    for pid in children_of(server[0]):
        if "envs.processes.worker" in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGKILL)
    page.wait_for_selector("#failure:has-text('The environment died')")
    assert page.is_disabled("#play")
    page.click("#failure-again")
    says(page, "Acting")
    assert page.is_hidden("#failure")
