"""Look at a page in headless Chromium: screenshots, and what its layout measures."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

MEASURE = """<script>
addEventListener("load", () => {
  const page = document.scrollingElement;
  const visible = [...document.querySelectorAll("svg")].filter(svg => svg.clientWidth > 0);
  parent.postMessage(JSON.stringify({
    innerWidth: innerWidth,
    scrollWidth: page.scrollWidth,
    pictures: visible.map(svg => svg.getBoundingClientRect().right),
    background: getComputedStyle(document.body).backgroundColor,
  }), "*");
});
</script>"""

FRAME = """<!doctype html>
<html style="color-scheme: light dark"><body><output id="measured"></output>
<script>
addEventListener("message", event => {{ measured.textContent = event.data; }});
</script>
<iframe src="{page}" width="{width}" height="900" style="border: 0"></iframe>
</body></html>"""
"""A window cannot be narrower than 500 pixels, but a frame can."""


def require_chromium() -> str:
    """Return Chromium's command; without it, tests fail in CI and skip elsewhere."""
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return found
    message = "chromium is not installed"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def measure(page: Path, width: int, *, dark: bool, folder: Path) -> dict[str, Any]:
    """Return the sizes of a page at a window width; a copy of the page measures itself."""
    copy = folder / "copy.html"
    frame = folder / "frame.html"
    text = page.read_text(encoding="utf-8")
    assert "</body>" in text
    copy.write_text(text.replace("</body>", MEASURE + "</body>"), encoding="utf-8")
    frame.write_text(FRAME.format(page=copy.as_uri(), width=width), encoding="utf-8")
    dom = _run(
        frame, width + 100, 1000, dark, folder, "--dump-dom", "--virtual-time-budget=5000"
    ).stdout
    found = re.search(r'<output id="measured">(.+?)</output>', dom, re.DOTALL)
    assert found, dom[-2000:]
    measured = json.loads(unescape(found[1]))
    assert isinstance(measured, dict)
    return measured


def screenshot(page: Path, width: int, height: int, *, dark: bool, folder: Path) -> Path:
    """Save what a window of this size shows."""
    image = folder / f"page-{width}-{'dark' if dark else 'light'}.png"
    done = _run(page, width, height, dark, folder, f"--screenshot={image}", "--hide-scrollbars")
    assert image.is_file(), done.stderr
    return image


def _run(
    page: Path, width: int, height: int, dark: bool, folder: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    scheme = 0 if dark else 1
    return subprocess.run(
        [
            require_chromium(),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={folder / 'profile'}",
            f"--blink-settings=preferredColorScheme={scheme}",
            f"--window-size={width},{height}",
            *arguments,
            page.resolve().as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
